"""Signature removal at the speed of the machine: measure the overscans, then one pass over all pixels.

`payloads.isr.readout` has put the counts in their places, `payloads.isr.kernels` makes the pass. Planes and buffers
are kept for the next image. `payloads.isr.steps` does the same in numpy.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payloads.isr.inputs import AmpLayout, IsrInputs, IsrPlanes
from payloads.isr.kernels import BLOCK, calibrate
from payloads.isr.overscan import column_medians, level_parallel_rows, measure_serial, unmixing
from payloads.isr.readout import ReadOut, parallel_shape, read_stack, serial_shape
from payloads.isr.sorting import sorting_network
from payloads.isr.steps import (
    GROW_SATURATED_PX,
    MAX_INTERPOLATED_PX,
    NO_DATA_VARIANCE,
    fill_long_runs,
    image_median,
    parallel_levels,
)
from payloads.mask import NO_DATA


def _readonly(values: NDArray | None, dtype: type, ndim: int) -> NDArray:  # type: ignore[type-arg]
    """Return values as a contiguous read-only array, empty for None: one type, so that there is one compiled kernel."""
    if values is None:
        values = np.empty((0,) * ndim, dtype=dtype)
    view = np.ascontiguousarray(values, dtype=dtype).view(np.ndarray)[...]
    view.flags.writeable = False
    return view


class PlanePool:
    """Planes and read-out that are used again for the next image, once nobody holds the last one's any more."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        """Return an array with any content.

        Numpy keeps the owner of a view alive, so its reference count tells whether a frame, or a slice of
        one of its planes, is still in somebody's hands.
        """
        kept = self._kept.pop(name, None)
        # One reference is ours, one the call's: then nobody else has it.
        if kept is None or kept.shape != shape or kept.dtype != dtype or sys.getrefcount(kept) > 2:
            kept = np.empty(shape, dtype=dtype)
        self._kept[name] = kept
        return kept

    def take(self, layout: AmpLayout, raw_height: int, raw_width: int) -> tuple[IsrPlanes, ReadOut]:
        """Return planes for one image, and a read-out into them."""
        shape = (layout.height, layout.width)
        n_amps = len(layout.names)
        planes = IsrPlanes(
            image=self.array("image", shape, np.float32),
            mask=self.array("mask", shape, np.int32),
            variance=self.array("variance", shape, np.float32),
            binned=np.empty((shape[0] // BLOCK, shape[1] // BLOCK), dtype=np.float32),
            levels=np.empty((n_amps, raw_height), dtype=np.float32),
            overscan_noise=np.empty(n_amps, dtype=np.float64),
            parallel_levels=np.empty((n_amps, layout.data.width), dtype=np.float32),
            counts=np.empty((n_amps, 3), dtype=np.int64),
        )
        readout = ReadOut(
            counts=planes.image.view(np.int32),
            serial=self.array("serial", serial_shape(layout, raw_height), np.int32),
            parallel=self.array("parallel", parallel_shape(layout), np.int32),
            row=self.array("row", (2, raw_width), np.int32),
            raw_height=raw_height,
        )
        return planes, readout


def calibrate_stack(stack: NDArray[np.int32], inputs: IsrInputs) -> IsrPlanes:
    """Remove the signature of one detector, as `payloads.isr.steps.run_steps` does; new planes.

    Parameters
    ----------
    stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
    """
    planes, readout = PlanePool().take(inputs.layout, *stack.shape[1:])
    read_stack(stack, inputs.layout, readout)
    run_kernels(readout, inputs, planes)
    return planes


def _measure_parallel(readout: ReadOut, inputs: IsrInputs, levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the parallel overscan level of every column."""
    layout, counts = inputs.layout, readout.counts
    box = layout.data
    y0, y1 = layout.parallel or (0, 0)
    gain = _readonly(inputs.gain, np.float32, 1)
    rows = np.empty(readout.parallel.shape, dtype=np.float32)
    unmix = unmixing(inputs.crosstalk, inputs.quadratic_crosstalk)
    level_parallel_rows(readout.parallel, np.ascontiguousarray(levels[:, y0:y1]), gain, unmix, rows)

    def imaging(amp: int) -> NDArray[np.int32]:
        x0, top, _, flip_y = layout.place[amp]
        pixels = counts[top : top + box.height, x0 : x0 + box.width]
        return pixels[::-1] if flip_y else pixels

    last = slice(box.height - min(GROW_SATURATED_PX, box.height), None)
    data_levels = levels[:, box.y0 : box.y1]
    last_rows = np.stack(
        [(imaging(amp)[last] - data_levels[amp, last, None]) * inputs.gain[amp] for amp in range(len(layout.names))]
    )
    return parallel_levels(
        rows,
        last_rows,
        gain=inputs.gain,
        saturation=inputs.saturation * inputs.gain,
        image_median=lambda amp: image_median(imaging(amp), data_levels[amp], inputs.gain[amp]),
        medians=column_medians,
    )


def run_kernels(readout: ReadOut, inputs: IsrInputs, planes: IsrPlanes) -> None:
    """Remove the signature of one detector.

    Parameters
    ----------
    readout
        Its counts, in the image plane of ``planes``.
    inputs
        What to apply.
    planes
        Overwritten; C-contiguous.
    """
    layout = inputs.layout
    box = layout.data
    if inputs.serial_overscan and layout.serial is not None:
        network = sorting_network(readout.serial.shape[2])
        measure_serial(readout.serial, network, box.y0, box.y1, planes.levels, planes.overscan_noise)
    else:
        planes.levels[...] = 0.0
        planes.overscan_noise[...] = np.nan
    with_parallel = inputs.parallel_overscan and layout.parallel is not None
    planes.parallel_levels[...] = _measure_parallel(readout, inputs, planes.levels) if with_parallel else 0.0
    planes.binned[...] = 0.0
    planes.counts[...] = 0
    if not layout.covers_image:
        planes.mask[...] = NO_DATA
        planes.variance[...] = NO_DATA_VARIANCE
        blank_gaps(planes.image, layout)
    electronics = np.stack(
        [inputs.gain, np.float32(1) / inputs.photon_gain, inputs.noise_variance, inputs.saturation, inputs.suspect],
        axis=1,
    ).astype(np.float32)
    # A row of n pixels has at most this many long runs.
    runs = np.empty((layout.height * (1 + layout.width // MAX_INTERPOLATED_PX), 3), dtype=np.int64)
    curves = inputs.linearity
    bands = layout.bands if layout.bands_are_apart and layout.covers_image else np.empty((0, 2), dtype=np.int64)
    n_runs = calibrate(
        readout.counts,
        np.ascontiguousarray(planes.levels[:, box.y0 : box.y1]),
        _readonly(planes.parallel_levels if with_parallel else None, np.float32, 2),
        _readonly(layout.place, np.int64, 2),
        np.lexsort((layout.place[:, 0], layout.place[:, 1])),
        bands,
        np.array([box.width, box.height], dtype=np.int64),
        electronics,
        np.int32(inputs.adc_max),
        unmixing(inputs.crosstalk, inputs.quadratic_crosstalk),
        _readonly(curves.knots if curves else None, np.float32, 2),
        _readonly(curves.pieces if curves else None, np.float32, 3),
        _readonly(curves.nearby if curves else None, np.int32, 2),
        _readonly(curves.bins_per_unit if curves else None, np.float32, 1),
        _readonly(inputs.bias, np.float32, 2),
        _readonly(inputs.dark, np.float32, 2),
        np.float32(inputs.dark_scale),
        _readonly(inputs.defects, np.uint8, 2),
        _readonly(inputs.flat, np.float32, 2),
        inputs.interpolate,
        planes.image,
        planes.mask,
        planes.variance,
        planes.binned,
        planes.counts,
        runs,
    )
    if n_runs:
        fill_long_runs(planes, runs[:n_runs])


def blank_gaps(image: NDArray[np.float32], layout: AmpLayout) -> None:
    """Set to 0 what no amp fills."""
    gap = np.ones(image.shape, dtype=np.bool_)
    for x0, y0, _, _ in layout.place:
        gap[y0 : y0 + layout.data.height, x0 : x0 + layout.data.width] = False
    image[gap] = 0.0
