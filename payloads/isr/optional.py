"""What follows the fused pass: deferred charge, brighter-fatter, cosmic rays; and how steady the levels were.

The first two act on charge as it was in the silicon, so flat and dark are put back around them, as the reference does;
that costs passes over the image only where they are asked for. All work in place.
"""

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from payloads.isr.brighter_fatter import BrighterFatterConfig, BrighterFatterWorkspace, correct_brighter_fatter
from payloads.isr.cosmic_rays import CosmicRayConfig, find_cosmic_rays
from payloads.isr.cti import correct_serial_cti, cti_parameters
from payloads.isr.inputs import IsrInputs, IsrPlanes
from payloads.isr.stability import correlate_levels, find_bias_shifts
from payloads.plugin import Frame, PayloadConfig


class OptionalSteps(PayloadConfig):
    """Which of these steps are made, and how; part of the configuration of payload ``isr``."""

    serial_cti: bool = Field(default=False, description="Put deferred charge back, with the calib serial_cti.")
    brighter_fatter: bool = Field(
        default=False, description="Undo the brighter-fatter effect, with the calib brighter_fatter (its kernel)."
    )
    brighter_fatter_limits: BrighterFatterConfig = BrighterFatterConfig()
    cosmic_rays: bool = Field(default=True, description="Flag cosmic rays (plane CR).")
    cosmic_ray_search: CosmicRayConfig = CosmicRayConfig()


@dataclass
class OptionalWorkspace:
    """Planes that are used again, made only if their step is asked for."""

    brighter_fatter: BrighterFatterWorkspace = field(default_factory=BrighterFatterWorkspace)


@njit(nogil=True, cache=True)
def _put_back(image, flat, dark, dark_scale):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Undo flat and dark: multiply, then add. Arguments of shape (0, 0) are left out."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if flat.shape[0] > 0 and flat[y, x] > np.float32(0):
                image[y, x] *= flat[y, x]
            if dark.shape[0] > 0 and np.isfinite(dark[y, x]):
                image[y, x] += dark[y, x] * dark_scale


@njit(nogil=True, cache=True)
def _take_off(image, flat, dark, dark_scale):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Subtract dark, divide by flat."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if dark.shape[0] > 0 and np.isfinite(dark[y, x]):
                image[y, x] -= dark[y, x] * dark_scale
            if flat.shape[0] > 0 and flat[y, x] > np.float32(0):
                image[y, x] /= flat[y, x]


def _plane(values: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return a read-only float32 plane, empty for None: one type, so that there is one compiled kernel."""
    view = np.ascontiguousarray(np.empty((0, 0)) if values is None else values, dtype=np.float32).view(np.ndarray)[...]
    view.flags.writeable = False
    return view


def _measure_stability(frame: Frame, inputs: IsrInputs, planes: IsrPlanes, excluded: Container[str]) -> None:
    """Add each amp's bias shifts and its strongest correlation with another amp; None without overscan."""
    layout = inputs.layout
    has_levels = inputs.serial_overscan and layout.serial is not None
    levels = planes.levels[:, layout.data.y0 : layout.data.y1]
    correlation = np.full((len(layout.names), len(layout.names)), np.nan)
    if has_levels:
        correlation = np.abs(correlate_levels(levels))
        np.fill_diagonal(correlation, np.nan)
        off = np.array([name in excluded for name in layout.names])
        correlation[off] = correlation[:, off] = np.nan
    n_shifts = 0
    found = find_bias_shifts(levels) if has_levels else []
    for place, name in enumerate(layout.names):
        is_measured = has_levels and name not in excluded
        shifts = found[place] if is_measured else []
        n_shifts += len(shifts)
        largest = max(shifts, key=lambda shift: abs(shift.size_adu), default=None)
        known = correlation[place][np.isfinite(correlation[place])]
        frame.amps.setdefault(name, {}).update(
            n_bias_shifts=len(shifts) if is_measured else None,
            bias_shift_adu=largest.size_adu if largest else None,
            level_correlation_max=float(known.max()) if len(known) else None,
        )
    known = correlation[np.isfinite(correlation)]
    frame.metrics["n_bias_shifts"] = n_shifts if has_levels else None
    frame.metrics["level_correlation_max"] = float(known.max()) if len(known) else None


def apply_optional_steps(
    frame: Frame,
    inputs: IsrInputs,
    planes: IsrPlanes,
    steps: OptionalSteps,
    workspace: OptionalWorkspace,
    *,
    excluded: Container[str] = (),
) -> None:
    """Make the steps asked for whose calibs there are; say so in ``applied``, ``calib_ids`` and the metrics.

    Parameters
    ----------
    frame
        Read for camera, unit and calibs; its planes are not looked at.
    inputs
        What the fused pass applied.
    planes
        Its result, changed in place; the binned image follows a changed image.
    excluded
        Amps that are switched off: not measured.

    Raises
    ------
    PayloadError
        Raised for a calib with impossible numbers.
    """
    _measure_stability(frame, inputs, planes, excluded)
    is_charge = frame.unit == "electron"
    kernel = frame.calibs.get("brighter_fatter") if steps.brighter_fatter and is_charge else None
    deferred = frame.calibs.get("serial_cti") if steps.serial_cti and is_charge else None
    layout = inputs.layout
    if kernel is not None or deferred is not None:
        flat, dark, dark_scale = _plane(inputs.flat), _plane(inputs.dark), np.float32(inputs.dark_scale)
        _put_back(planes.image, flat, dark, dark_scale)
        if deferred is not None:
            correct_serial_cti(
                planes.image,
                layout.place,
                width=layout.data.width,
                height=layout.data.height,
                n_prescan=layout.data.x0,
                parameters=cti_parameters(deferred.table, layout.names),
            )
            frame.calib_ids["serial_cti"] = deferred.calib_id
            frame.applied.append("serial_cti")
        if kernel is not None:
            found = correct_brighter_fatter(
                planes.image,
                kernel.image,
                config=steps.brighter_fatter_limits,
                workspace=workspace.brighter_fatter,
            )
            if not found.has_diverged:
                frame.calib_ids["brighter_fatter"] = kernel.calib_id
                frame.applied.append("brighter_fatter")
            frame.metrics["brighter_fatter_iterations"] = found.n_iterations
            frame.metrics["brighter_fatter_converged"] = found.has_converged
        _take_off(planes.image, flat, dark, dark_scale)
    if steps.cosmic_rays:
        rays = find_cosmic_rays(
            planes.image,
            planes.variance,
            planes.mask,
            pixel_scale_arcsec=frame.camera.plate_scale_arcsec_per_mm * frame.detector.pixel_mm,
            per_photon=float(np.median(1.0 / inputs.photon_gain)),
            config=steps.cosmic_ray_search,
        )
        if not rays.too_many:
            frame.applied.append("cosmic_rays")
        frame.metrics["n_cosmic_rays"] = None if rays.too_many else rays.n_rays
        frame.metrics["n_cosmic_ray_px"] = None if rays.too_many else rays.n_pixels
    is_changed = kernel is not None or deferred is not None or (steps.cosmic_rays and steps.cosmic_ray_search.repair)
    if is_changed:
        height, width = planes.binned.shape
        rows = planes.image[: 8 * height].reshape(height, 8, -1).sum(axis=1, dtype=np.float32)
        planes.binned[...] = rows[:, : 8 * width].reshape(height, width, 8).sum(axis=2, dtype=np.float32)
        planes.binned /= np.float32(64)
