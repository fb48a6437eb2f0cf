"""Donuts: out-of-focus stars. Find them, measure them, read the defocus off their size.

A donut is the image of the pupil. Its diameter is the defocus times the opening of the beam, so that two of them,
one inside and one outside of focus, tell where focus is, whatever the seeing.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray
from pydantic import Field

from payloads.focus.annulus import Annulus, measure_annulus
from payloads.mask import NOT_FOR_STATISTICS
from payloads.plugin import Metric, PayloadConfig
from payloads.quality.mode import commanded_defocus_um
from payloads.quality.sky import Sky, Workspace, measure_sky
from rapid.camera.models import Camera, Detector
from rapid.exposure.models import ExposureInfo

OBSCURATION = 0.61
"""Inner over outer diameter of the Rubin pupil; only a first guess for the size depends on it."""
MAX_BAD_FRACTION = 0.02
"""Donuts with more bad pixels than this are left out."""

MAX_ELLIPTICITY = 0.3
"""More than aberrations or vignetting do to a donut: two that overlap."""


class DonutSettings(PayloadConfig):
    """How to find and measure donuts."""

    n_max: int = Field(default=20, ge=1, description="Brightest donuts that are measured.")
    min_diameter_px: float = Field(default=20.0, gt=4, description="Smaller sources are no donuts.")
    detection_sigma: float = Field(default=5.0, gt=0, description="Detection threshold over the binned sky noise.")
    min_edge_snr: float = Field(default=3.0, gt=0, description="Least S/N of a sector's ring for its edge to count.")


@dataclass(frozen=True)
class Donut:
    """One measured donut.

    Attributes
    ----------
    x, y
        Centre of the outer edge [px], (0, 0) the centre of the lower left pixel.
    flux_e
        Within 1.25 times the outer radius, above the local background [electron].
    defocus_um
        Distance from focus, always positive [um].
    """

    x: float
    y: float
    flux_e: float
    annulus: Annulus
    defocus_um: float

    @property
    def diameter_px(self) -> float:
        """Outer diameter, mean over position angle [px]."""
        return 2.0 * self.annulus.outer_radius_px


@dataclass(frozen=True)
class Donuts:
    """The donuts of one image, brightest first; and the defocus that was asked for [um], None if not known."""

    donuts: tuple[Donut, ...]
    sky: Sky
    commanded_um: float | None

    def __len__(self) -> int:
        return len(self.donuts)


def beam_slope(f_ratio: float) -> float:
    """Return the tangent of the marginal ray's angle: radius of a donut per unit of defocus.

    Examples
    --------
    >>> round(1.5 / 0.010 * beam_slope(1.2335), 1)  # radius [px] of a donut 1.5 mm out of focus, 10 um pixels
    66.5

    Notes
    -----
    1 / sqrt(4 N^2 - 1). An aplanatic telescope obeys the sine condition, sin u = 1 / (2 N); the paraxial 1 / (2 N)
    itself is 9 % too small at f/1.2 (and right to 0.04 % at f/18). Used alike by the observatory's wavefront pipeline.
    """
    return 1.0 / math.sqrt(4.0 * f_ratio**2 - 1.0)


def defocus_from_diameter_um(diameter_px: float, *, f_ratio: float, pixel_mm: float) -> float:
    """Return the distance from focus of a donut, without sign [um].

    Examples
    --------
    >>> round(defocus_from_diameter_um(133.03, f_ratio=1.2335, pixel_mm=0.010))
    1500
    """
    return diameter_px / 2.0 * pixel_mm * 1000.0 / beam_slope(f_ratio)


def focus_offset_um(intra_diameter_px: float, extra_diameter_px: float, *, f_ratio: float, pixel_mm: float) -> float:
    """Return how far focus is from the middle of an intra/extra pair taken at equal and opposite defocus [um].

    Positive where the extra-focal donut is the larger one: the middle lies on the extra-focal side, and has to
    move by as much towards the intra-focal one.

    Examples
    --------
    >>> round(focus_offset_um(131.0, 135.0, f_ratio=1.2335, pixel_mm=0.010), 1)
    22.6
    """
    half_difference = (extra_diameter_px - intra_diameter_px) / 2.0
    return half_difference / 2.0 * pixel_mm * 1000.0 / beam_slope(f_ratio)


def _find(sky: Sky, settings: DonutSettings, *, block_px: int) -> list[tuple[float, float, float]]:
    """Return centre and first radius of donut-like sources, brightest first [px]."""
    if sky.level is None or sky.block_noise <= 0.0:
        return []
    least_area = max(5, round(0.3 * math.pi / 4.0 * (settings.min_diameter_px / block_px) ** 2))
    found = sep.extract(
        sky.subtracted,
        settings.detection_sigma,
        err=sky.block_noise,
        mask=sky.unusable if sky.unusable.any() else None,
        minarea=least_area,
        filter_kernel=None,
        deblend_cont=1.0,
        clean=False,
    )
    found = found[(found["flag"] & sep.OBJ_TRUNC) == 0]
    found = found[np.argsort(-found["flux"], kind="stable")]
    # Second moment of a uniform annulus about its centre: R^2 (1 + eps^2) / 4.
    radius = 2.0 * np.sqrt(found["a"] * found["b"] / (1.0 + OBSCURATION**2)) * block_px
    offset = (block_px - 1) / 2.0
    round_enough = (found["b"] > 0.5 * found["a"]) & (2.0 * radius >= settings.min_diameter_px)
    return [
        (float(s["x"]) * block_px + offset, float(s["y"]) * block_px + offset, float(r))
        for s, r in zip(found[round_enough], radius[round_enough], strict=True)
    ]


def measure_donuts(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    *,
    camera: Camera,
    detector: Detector,
    info: ExposureInfo,
    gain: float = 1.0,
    settings: DonutSettings | None = None,
    workspace: Workspace | None = None,
) -> Donuts:
    """Find and measure the donuts of an image.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
        Not modified.
    mask : ndarray of the same shape, int32, or None
    gain
        Electron per unit of the image.

    Returns
    -------
    donuts
        Whole, round, single ones, brightest first; those cut by an edge, overlapping another or holding many bad
        pixels are left out.
    """
    told = settings or DonutSettings()
    commanded_um = commanded_defocus_um(info, detector)
    guess_px = 0.0
    if commanded_um is not None:
        guess_px = 2.0 * abs(commanded_um) / 1000.0 * beam_slope(camera.f_ratio) / detector.pixel_mm
    # A donut of ten blocks is found easily and cheaply; without a guess a block must suit the smallest one.
    block_px = int(np.clip(max(guess_px, 2.0 * told.min_diameter_px) / 12.0, 1, 16))
    box_px = int(np.clip(4.0 * max(guess_px, 128.0), 512, 2048))
    sky = measure_sky(image, mask, factor=block_px, box_px=box_px, workspace=workspace)
    donuts: list[Donut] = []
    candidates = _find(sky, told, block_px=block_px)
    for x, y, radius in candidates[: 3 * told.n_max]:
        # Two donuts whose rings touch spoil each other's edges.
        if any(
            (other_x, other_y) != (x, y) and math.hypot(other_x - x, other_y - y) < 2.2 * radius
            for other_x, other_y, _ in candidates
        ):
            continue
        donut = _measure(
            image, mask, x, y, radius, sky=sky, gain=gain, camera=camera, pixel_mm=detector.pixel_mm, told=told
        )
        if donut is not None:
            donuts.append(donut)
        if len(donuts) == told.n_max:
            break
    return Donuts(tuple(_without_outliers(donuts)), sky, commanded_um)


def _measure(
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None,
    x: float,
    y: float,
    radius: float,
    *,
    sky: Sky,
    gain: float,
    camera: Camera,
    pixel_mm: float,
    told: DonutSettings,
) -> Donut | None:
    half = math.ceil(1.6 * radius) + 4
    x0, y0 = round(x) - half, round(y) - half
    x1, y1 = x0 + 2 * half + 1, y0 + 2 * half + 1
    if x0 < 0 or y0 < 0 or x1 > image.shape[1] or y1 > image.shape[0]:
        return None
    stamp = image[y0:y1, x0:x1].astype(np.float64)
    bad = ~np.isfinite(stamp)
    if mask is not None:
        bad |= (mask[y0:y1, x0:x1] & NOT_FOR_STATISTICS) != 0
    if np.count_nonzero(bad) > MAX_BAD_FRACTION * bad.size:
        return None
    grid_y, grid_x = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    outside = (np.hypot(grid_x - (x - x0), grid_y - (y - y0)) > 1.3 * radius) & ~bad
    level = float(np.median(stamp[outside])) if np.count_nonzero(outside) > 100 else float(sky.level or 0.0)
    stamp = np.where(bad, np.nan, stamp - level)
    annulus = measure_annulus(stamp, x - x0, y - y0, radius, noise=sky.noise or 0.0, min_edge_snr=told.min_edge_snr)
    if annulus is None or not told.min_diameter_px <= 2.0 * annulus.outer_radius_px <= 3.0 * radius:
        return None
    if math.hypot(annulus.e1, annulus.e2) > MAX_ELLIPTICITY:
        return None
    inside = np.hypot(grid_x - annulus.x, grid_y - annulus.y) <= 1.25 * annulus.outer_radius_px
    return Donut(
        x=annulus.x + x0,
        y=annulus.y + y0,
        flux_e=float(np.nansum(stamp[inside])) * gain,
        annulus=annulus,
        defocus_um=defocus_from_diameter_um(2.0 * annulus.outer_radius_px, f_ratio=camera.f_ratio, pixel_mm=pixel_mm),
    )


def _without_outliers(donuts: list[Donut]) -> list[Donut]:
    """Leave out those of another size: blends, galaxies, ghosts. All stars are equally far from focus."""
    if len(donuts) < 4:
        return donuts
    diameters = np.array([donut.diameter_px for donut in donuts])
    middle = float(np.median(diameters))
    return [donut for donut, d in zip(donuts, diameters, strict=True) if abs(d - middle) < 0.15 * middle]


def donut_metrics(found: Donuts) -> dict[str, Metric]:
    """Return the detector's numbers: medians over its donuts, None where there is no donut.

    ``defocus_um`` carries the sign of the commanded defocus, or is positive if that is not known (then
    ``defocus_sign_known`` is false); ``defocus_residual_um`` is what is left after subtracting it.
    """
    keys = (
        "donut_diameter_px",
        "donut_diameter_scatter_px",
        "donut_inner_diameter_px",
        "donut_e1",
        "donut_e2",
        "donut_flux_e",
        "defocus_um",
        "defocus_residual_um",
    )
    metrics: dict[str, Metric] = dict.fromkeys(keys)
    metrics |= {"n_donuts": len(found), "defocus_sign_known": found.commanded_um is not None}
    if not found.donuts:
        return metrics
    donuts = found.donuts
    diameters = np.array([donut.diameter_px for donut in donuts])
    inner = [2.0 * d.annulus.inner_radius_px for d in donuts if d.annulus.inner_radius_px is not None]
    sign = -1.0 if found.commanded_um is not None and found.commanded_um < 0 else 1.0
    defocus_um = sign * float(np.median([donut.defocus_um for donut in donuts]))
    metrics |= {
        "donut_diameter_px": float(np.median(diameters)),
        "donut_diameter_scatter_px": 1.4826 * float(np.median(np.abs(diameters - np.median(diameters)))),
        "donut_inner_diameter_px": float(np.median(inner)) if inner else None,
        "donut_e1": float(np.median([donut.annulus.e1 for donut in donuts])),
        "donut_e2": float(np.median([donut.annulus.e2 for donut in donuts])),
        "donut_flux_e": max(donut.flux_e for donut in donuts),
        "defocus_um": defocus_um,
        "defocus_residual_um": None if found.commanded_um is None else defocus_um - found.commanded_um,
    }
    return metrics


def donut_columns(found: Donuts) -> dict[str, list[Any]]:
    """Return the table of donuts, one list per column, brightest first."""
    donuts = found.donuts
    return {
        "x": [d.x for d in donuts],
        "y": [d.y for d in donuts],
        "flux_e": [d.flux_e for d in donuts],
        "diameter_px": [d.diameter_px for d in donuts],
        "diameter_error_px": [2.0 * d.annulus.outer_radius_error_px for d in donuts],
        "inner_diameter_px": [
            None if d.annulus.inner_radius_px is None else 2.0 * d.annulus.inner_radius_px for d in donuts
        ],
        "e1": [d.annulus.e1 for d in donuts],
        "e2": [d.annulus.e2 for d in donuts],
        "defocus_um": [d.defocus_um for d in donuts],
    }
