"""What one detector's signature removal works with, as arrays: the same for both implementations.

`payloads.isr.payload` fills it from the camera, the raw's segments and the calibs; `payloads.isr.steps` (numpy,
to be read) and `payloads.isr.kernels` (compiled, to be fast) take nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from payloads.isr.linearity import Linearity
from rapid.camera.models import Amp, Box
from rapid.errors import PayloadError

OVERSCAN_SKIP = 3
"""Columns (rows) left out at either end of an overscan: deferred charge in front, the next line's edge behind."""
MIN_OVERSCAN = 4
"""Fewest pixels of an overscan row that make a level; narrow overscans skip less."""


def overscan_range(start: int, size: int) -> tuple[int, int]:
    """Return first and one-past-last pixel used of an overscan.

    Examples
    --------
    >>> overscan_range(512, 64), overscan_range(32, 6)
    ((515, 573), (33, 37))
    """
    skip = max(0, min(OVERSCAN_SKIP, (size - MIN_OVERSCAN) // 2))
    return start + skip, start + size - skip


@dataclass(frozen=True)
class AmpLayout:
    """Where the pixels of all amps are; alike in every segment of a raw.

    Attributes
    ----------
    data
        Imaging pixels in each segment.
    serial
        Overscan columns used, first and one past the last; None without overscan.
    parallel
        Overscan rows used.
    place : ndarray of shape (n_amps, 4), int64
        Of each amp: x0, y0 in the trimmed image, flip_x, flip_y.
    bands : ndarray of shape (n_bands, 2), int64
        The distinct (y0, flip_y): amps that fill the same detector rows.
    height, width
        Size of the trimmed image [px].
    """

    names: tuple[str, ...]
    data: Box
    serial: tuple[int, int] | None
    parallel: tuple[int, int] | None
    place: NDArray[np.int64]
    bands: NDArray[np.int64]
    height: int
    width: int

    @property
    def covers_image(self) -> bool:
        """Whether the amps fill every pixel of the image."""
        return len(self.names) * self.data.width * self.data.height == self.width * self.height

    @property
    def bands_are_apart(self) -> bool:
        """Whether every detector row is read by the amps of one band only."""
        starts = np.sort(self.bands[:, 0])
        return bool((np.diff(starts) >= self.data.height).all())


def layout_of(amps: tuple[Amp, ...], *, height: int, width: int) -> AmpLayout:
    """Return the layout of a detector's amps.

    Raises
    ------
    PayloadError
        Raised if the amps are not read alike, fill the same pixels, or one lies outside the image.
    """
    first = amps[0]
    for amp in amps:
        if (amp.data, amp.serial_overscan, amp.parallel_overscan) != (
            first.data,
            first.serial_overscan,
            first.parallel_overscan,
        ):
            raise PayloadError(f"amps {first.name} and {amp.name} are not read alike", amp=amp.name)
        if (amp.trimmed.width, amp.trimmed.height) != (amp.data.width, amp.data.height):
            raise PayloadError(f"amp {amp.name}: imaging pixels and their place differ in size", amp=amp.name)
        if amp.trimmed.x1 > width or amp.trimmed.y1 > height:
            raise PayloadError(f"amp {amp.name} lies outside the {width} x {height} image", amp=amp.name)
    for one, other in combinations(amps, 2):
        a, b = one.trimmed, other.trimmed
        if a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1:
            raise PayloadError(f"amps {one.name} and {other.name} fill the same pixels", amp=one.name)
    serial, parallel = first.serial_overscan, first.parallel_overscan
    place = np.array([(a.trimmed.x0, a.trimmed.y0, a.flip_x, a.flip_y) for a in amps], dtype=np.int64)
    return AmpLayout(
        names=tuple(amp.name for amp in amps),
        data=first.data,
        serial=overscan_range(serial.x0, serial.width) if serial else None,
        parallel=overscan_range(parallel.y0, parallel.height) if parallel else None,
        place=place,
        bands=np.unique(place[:, [1, 3]], axis=0),
        height=height,
        width=width,
    )


@dataclass(frozen=True)
class IsrInputs:
    """All that is applied to one raw. None means: this step is left out.

    Attributes
    ----------
    gain : ndarray of shape (n_amps,), float32, electron/ADU
        Ones leave the image in ADU.
    photon_gain : ndarray of shape (n_amps,), float32
        Electron per unit of the image: 1 where `gain` was applied.
    noise_variance : ndarray of shape (n_amps,), float32, unit squared
        Read noise squared, with the calibs' own variance.
    saturation, suspect : ndarray of shape (n_amps,), float32, ADU above bias
    adc_max
        Count at which the converter is at its end: saturated whatever the overscan says [ADU].
    crosstalk : ndarray of shape (n_amps, n_amps), float32
        ``[target, source]``: fraction of the source's signal that appears in the target.
    quadratic_crosstalk : ndarray of shape (n_amps, n_amps), float32, one over the unit of the image
        ``[target, source]``: what of the square of the source's signal appears in the target.
    linearity
        What to subtract, by signal [unit of the image].
    bias, dark, flat : ndarray of shape (height, width), float32
    dark_scale
        What the dark is multiplied with: the dark time [s].
    defects : ndarray of shape (height, width), uint8
        Nonzero is bad.
    interpolate
        Whether pixels without value get one from their neighbours in the row.
    """

    layout: AmpLayout
    gain: NDArray[np.float32]
    photon_gain: NDArray[np.float32]
    noise_variance: NDArray[np.float32]
    saturation: NDArray[np.float32]
    suspect: NDArray[np.float32]
    adc_max: int = 262143
    serial_overscan: bool = True
    parallel_overscan: bool = True
    crosstalk: NDArray[np.float32] | None = None
    quadratic_crosstalk: NDArray[np.float32] | None = None
    linearity: Linearity | None = None
    bias: NDArray[np.float32] | None = None
    dark: NDArray[np.float32] | None = None
    dark_scale: float = 0.0
    flat: NDArray[np.float32] | None = None
    defects: NDArray[np.uint8] | None = None
    interpolate: bool = True


@dataclass
class IsrPlanes:
    """What signature removal makes.

    Attributes
    ----------
    image, variance : ndarray of shape (height, width), float32
    mask : ndarray of shape (height, width), int32
    binned : ndarray of shape (height // 8, width // 8), float32
    levels : ndarray of shape (n_amps, raw_height), float32, ADU
        Serial overscan level of every row; zeros if it was not subtracted.
    overscan_noise : ndarray of shape (n_amps,), float64, ADU
        Scatter of the overscan about its row levels, clipped; NaN where there is none.
    parallel_levels : ndarray of shape (n_amps, data_width), float32
        What was subtracted from every column.
    counts : ndarray of shape (n_amps, 3), int64
        Pixels SAT, SUSPECT and BAD of every amp, before anything grows.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    variance: NDArray[np.float32]
    binned: NDArray[np.float32]
    levels: NDArray[np.float32]
    overscan_noise: NDArray[np.float64]
    parallel_levels: NDArray[np.float32]
    counts: NDArray[np.int64]


def crosstalk_matrix(table: Mapping[str, Mapping[str, float]], names: tuple[str, ...]) -> NDArray[np.float32]:
    """Return ``[target, source]`` from a calib's table ``{target amp: {source amp: coefficient}}``; what is absent is 0.

    Raises
    ------
    PayloadError
        Raised, naming the amps, for a coefficient that is no number.
    """
    matrix = np.zeros((len(names), len(names)), dtype=np.float32)
    for target, name in enumerate(names):
        for source, other in enumerate(names):
            if source != target:
                matrix[target, source] = table.get(name, {}).get(other, 0.0)
                if not np.isfinite(matrix[target, source]):
                    message = f"crosstalk of {other} into {name} is {table[name][other]}"
                    raise PayloadError(message, amp=name)
    return matrix
