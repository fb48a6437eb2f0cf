"""The payload ``encircled_energy``: how a star's light is spread, out to its wings.

The widths of the quick look describe the core of the image. What is scattered into the wings (dust, mirror roughness, a
telescope out of focus) shows in the radii that hold 80 or 95 percent of the light. Measured on the brightest stars, in
large stamps: some tenths of a second per CCD, which is why it is meant for an afterburner.
"""

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from payloads.plugin import Frame, Metric, PayloadConfig
from payloads.quality.measure import Settings, measure_quality
from payloads.quality.sky import Workspace
from payloads.quality.stars import REJECT

FRACTIONS = (0.5, 0.8, 0.95)
"""Parts of the light whose radii are reported: the core, the shoulders, the wings."""
STEP_PX = 0.5
"""Between the radii of a curve of growth; between them it is a straight line."""


class EncircledEnergyConfig(PayloadConfig):
    """How to measure curves of growth."""

    n_max_stars: int = Field(default=40, ge=1, le=500, description="Brightest stars that are measured.")
    min_stars: int = Field(default=3, ge=1, description="With fewer than this nothing is said.")
    radius_arcsec: float = Field(default=5.0, gt=0, le=20, description="What is within this is all of the light.")
    sky_width_arcsec: float = Field(
        default=1.5, gt=0, le=10, description="Width of the ring beyond it that gives the sky."
    )
    min_snr: float = Field(default=100.0, gt=0, description="Least S/N of a star's light within the radius.")

    @model_validator(mode="after")
    def _has_enough(self) -> "EncircledEnergyConfig":
        if self.min_stars > self.n_max_stars:
            raise ValueError("min_stars is above n_max_stars")
        return self


def measure_growth(
    stamp: NDArray[np.float32], bad: NDArray[np.bool_], x: float, y: float, *, radius_px: float, sky_px: float
) -> tuple[NDArray[np.float64], float] | None:
    """Return a star's curve of growth.

    Parameters
    ----------
    stamp : ndarray of shape (ny, nx), float32
        The star and its surroundings. Not modified.
    bad : ndarray of the same shape, bool
        Pixels not to be used. One within the radius leaves no curve: light would be missing.
    x, y
        Centre of the star in the stamp [px].
    radius_px
        Radius within which all of the light is.
    sky_px
        Width of the ring beyond it whose median is the sky.

    Returns
    -------
    growth : ndarray of shape (n,), float64
        Light within radii of 0, `STEP_PX`, ... up to ``radius_px``, as parts of that within the last one.
    snr
        That light over its noise, the sky's noise alone counted.
    None if it cannot be measured: bad pixels, half of the ring bad, no light, or a neighbour in the ring.

    Notes
    -----
    A pixel counts in an aperture with the part of it that is inside, taken as linear over one pixel across the edge. Radii
    of a Gaussian of sigma 2 px come out within 3 percent, the pixel's own width included.
    """
    grid_y, grid_x = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    distance = np.hypot(grid_x - x, grid_y - y)
    inside = distance <= radius_px + 0.5
    ring = (distance > radius_px + 0.5) & (distance <= radius_px + 0.5 + sky_px)
    good_ring = ring & ~bad
    if bad[inside].any() or np.count_nonzero(good_ring) < max(0.5 * np.count_nonzero(ring), 8):
        return None
    around = stamp[good_ring].astype(np.float64)
    sky = float(np.median(around))
    noise = 1.4826 * float(np.median(np.abs(around - sky)))
    light = stamp[inside].astype(np.float64) - sky
    if around.max() - sky > max(0.05 * float(light.max()), 8.0 * noise):
        return None
    radii = np.arange(0.0, radius_px + 0.5 * STEP_PX, STEP_PX)
    shares = np.clip(radii[:, None] - distance[inside][None, :] + 0.5, 0.0, 1.0)
    shares[0] = 0.0
    growth = shares @ light
    if not growth[-1] > 0.0:
        return None
    n_px = math.pi * radius_px**2
    return growth / growth[-1], float(growth[-1]) / (noise * math.sqrt(n_px)) if noise > 0 else math.inf


def radius_of(growth: NDArray[np.float64], fraction: float) -> float:
    """Return the smallest radius [px] that holds a part of the light.

    Examples
    --------
    >>> radius_of(np.array([0.0, 0.25, 0.75, 1.0]), 0.5)
    0.75
    """
    at = int(np.argmax(growth >= fraction))
    low, high = float(growth[at - 1]), float(growth[at])
    return STEP_PX * (at - 1 + (fraction - low) / (high - low))


class EncircledEnergy:
    """Radii that hold 50, 80 and 95 percent of the light of the brightest stars.

    Writes the metrics ``ee50_radius_arcsec``, ``ee80_radius_arcsec``, ``ee95_radius_arcsec`` (medians over the stars, None
    with fewer than ``min_stars``), ``ee80_radius_scatter_arcsec``, ``n_ee_stars`` and ``ee_note``; of each amp with
    stars ``ee80_radius_arcsec`` and ``n_ee_stars``; and the table ``growth``, the median curve.
    """

    name: ClassVar[str] = "encircled_energy"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = EncircledEnergyConfig

    def __init__(self, config: EncircledEnergyConfig) -> None:
        self.config = config
        self._workspace = Workspace()

    def run(self, frame: Frame) -> None:
        """Measure the frame's image.

        Raises
        ------
        PayloadError
            Raised if no payload has assembled the image yet.
        """
        image = np.ascontiguousarray(frame.assembled("encircled_energy"), dtype=np.float32)
        scale = frame.camera.plate_scale_arcsec_per_mm * frame.detector.pixel_mm
        found = self._curves(frame, image, scale)
        curves = np.array([growth for _, _, growth in found])
        radii = {part: np.array([radius_of(growth, part) for growth in curves]) * scale for part in FRACTIONS}
        metrics: dict[str, Metric] = {f"ee{round(100 * part)}_radius_arcsec": None for part in FRACTIONS}
        metrics["ee80_radius_scatter_arcsec"] = None
        metrics["n_ee_stars"] = len(found)
        metrics["ee_note"] = f"too few stars ({len(found)})" if len(found) < self.config.min_stars else None
        if len(found) >= self.config.min_stars:
            for part, values in radii.items():
                metrics[f"ee{round(100 * part)}_radius_arcsec"] = float(np.median(values))
            middle = np.median(radii[0.8])
            metrics["ee80_radius_scatter_arcsec"] = float(1.4826 * np.median(np.abs(radii[0.8] - middle)))
            frame.tables["growth"] = {
                "radius_arcsec": [float(k * STEP_PX * scale) for k in range(curves.shape[1])],
                "fraction": [float(value) for value in np.median(curves, axis=0)],
            }
        frame.metrics.update(metrics)
        for amp in frame.detector.amps:
            rows, columns = amp.trimmed.slices
            own = [
                k
                for k, (x, y, _) in enumerate(found)
                if rows.start <= y + 0.5 < rows.stop and columns.start <= x + 0.5 < columns.stop
            ]
            if own:
                numbers = frame.amps.setdefault(amp.name, {})
                numbers["n_ee_stars"] = len(own)
                numbers["ee80_radius_arcsec"] = float(np.median(radii[0.8][own]))

    def _curves(
        self, frame: Frame, image: NDArray[np.float32], scale: float
    ) -> list[tuple[float, float, NDArray[np.float64]]]:
        """Return place and curve of growth of the brightest stars that stand alone."""
        told = self.config
        quality = measure_quality(
            image,
            frame.mask,
            pixel_scale_arcsec=scale,
            gain=frame.gain,
            settings=Settings(n_max_stars=4 * told.n_max_stars),
            workspace=self._workspace,
        )
        radius, width = told.radius_arcsec / scale, told.sky_width_arcsec / scale
        half = math.ceil(radius + width) + 1
        stars, sources = quality.stars, quality.sources
        found: list[tuple[float, float, NDArray[np.float64]]] = []
        for k in np.flatnonzero(stars.is_psf):
            x, y = float(stars.x[k]), float(stars.y[k])
            x0, y0 = round(x) - half, round(y) - half
            if x0 < 0 or y0 < 0 or x0 + 2 * half >= image.shape[1] or y0 + 2 * half >= image.shape[0]:
                continue
            # Another source within the radius would be taken for this star's light.
            others = np.hypot(sources.x - x, sources.y - y)
            if np.count_nonzero(others < radius) > 1:
                continue
            part = (slice(y0, y0 + 2 * half + 1), slice(x0, x0 + 2 * half + 1))
            bad = np.zeros((2 * half + 1, 2 * half + 1), dtype=bool)
            if frame.mask is not None:
                bad = (frame.mask[part] & REJECT) != 0
            curve = measure_growth(image[part], bad, x - x0, y - y0, radius_px=radius, sky_px=width)
            if curve is not None and curve[1] >= told.min_snr:
                found.append((x, y, curve[0]))
            if len(found) >= told.n_max_stars:
                break
        return found
