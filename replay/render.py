"""Render a raw: what the sky, the optics, the CCD and its electronics make of an exposure.

The steps follow the light, so that ISR has to undo them in reverse: sources and sky, vignetting and pixel
response, dark current and defects, photon and read noise, saturation, non-linearity, bias structure,
crosstalk, rounding.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapid.camera.models import Camera, Detector
from replay import kernels
from replay.corners import add_corner_donuts, has_corner_donuts
from replay.plan import PlannedExposure
from replay.truth import (
    FIXED_PATTERN_E,
    NONLINEARITY,
    PIXEL_RESPONSE_SCATTER,
    DetectorTruth,
    detector_truth,
    rng_of,
    vignetting,
)

BETA = 3.5
"""Moffat index: wings as the atmosphere makes them."""

ADC_MAX = (1 << 18) - 1
CROSSTALK_PX = 1000
"""Pixels of every amp whose crosstalk is added at a time."""
FOCUS_BLUR_ARCSEC_PER_UM = 0.0112
"""Growth of the image with defocus, added in quadrature (LSST, f/1.23, obscured)."""

ZERO_POINT = 28.2
"""Magnitude that gives one electron per second."""

OBSCURATION = 0.61
N_DONUTS = 12
"""Donuts on a CCD, the brightest stars of the field that do not overlap."""


@dataclass(frozen=True)
class StarTruth:
    """Stars of one CCD, as rendered."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux_e: NDArray[np.float64]
    fwhm_px: float
    e1: float
    e2: float


@lru_cache(maxsize=1)
def normal_pool() -> NDArray[np.float32]:
    """Return the pool of normal numbers: zero mean and unit variance exactly."""
    pool = np.random.default_rng(20260101).standard_normal(kernels.POOL_SIZE, dtype=np.float32)
    pool -= pool.mean(dtype=np.float64)
    pool /= pool.std(dtype=np.float64)
    return pool


def _offsets(rng: np.random.Generator, n: int, width: int) -> NDArray[np.int64]:
    return rng.integers(0, kernels.POOL_SIZE - width - 1, n)


def catalogue(camera: Camera, detector: Detector, field_seed: int, stars_per_detector: int) -> tuple[NDArray[Any], ...]:
    """Return x, y [px] and magnitude of a field's stars on one CCD; the same in every exposure of the field."""
    rng = rng_of(field_seed, detector.id, 2)
    n = max(int(rng.poisson(stars_per_detector)), 1)
    del camera
    x = rng.uniform(0, detector.width, n)
    y = rng.uniform(0, detector.height, n)
    # dlogN/dm = 0.3 between the bright and the faint limit.
    low, high = 10 ** (0.3 * 16.5), 10 ** (0.3 * 22.5)
    magnitude = np.log10(rng.uniform(low, high, n)) / 0.3
    return x, y, magnitude


def psf_of(exposure: PlannedExposure, detector: Detector, camera: Camera) -> tuple[float, float, float]:
    """Return FWHM [arcsec], e1 and e2 of stars on a CCD.

    Seeing, defocus in quadrature, and a slow variation over the field.
    """
    reach = max(float(np.hypot(d.x_mm, d.y_mm)) for d in camera.detectors) + 1.0
    u, v = detector.x_mm / reach, detector.y_mm / reach
    # A donut's defocus is rendered ray by ray; what blurs its edges is the atmosphere alone.
    defocus_um = 0.0 if exposure.defocus_mm else (exposure.focus_z_mm - exposure.best_focus_mm) * 1000.0 + 6.0 * u
    fwhm = np.hypot(exposure.seeing_arcsec * (1 + 0.04 * (u * u + v * v)), FOCUS_BLUR_ARCSEC_PER_UM * defocus_um)
    return float(fwhm), exposure.e1 + 0.02 * u * v, exposure.e2 + 0.01 * (u * u - v * v)


def donut_radius_px(defocus_mm: float, f_ratio: float, pixel_mm: float) -> float:
    """Return the outer radius of a donut [px]: the beam's cone cut at a height, r = dz / sqrt(4 N^2 - 1)."""
    return abs(defocus_mm) / float(np.sqrt(4 * f_ratio**2 - 1)) / pixel_mm


def _apart(x: NDArray[Any], y: NDArray[Any], order: NDArray[Any], distance: float, n: int) -> NDArray[Any]:
    """Return, of stars in an order, the first ``n`` that keep a distance from those taken before."""
    taken: list[int] = []
    for star in order:
        if all((x[star] - x[other]) ** 2 + (y[star] - y[other]) ** 2 > distance**2 for other in taken):
            taken.append(int(star))
        if len(taken) == n:
            break
    return np.array(taken, dtype=np.int64)


@lru_cache(maxsize=32)
def donut_template(
    defocus_mm: float, blur_px: float, f_ratio: float, pixel_mm: float, zernikes: tuple[float, ...]
) -> NDArray[np.float32]:
    """Return the image of a defocused star, summing to one.

    A regular grid of rays fills the obscured pupil; each lands where defocus and the gradient of the
    aberrations send it (paraxial), and is spread over four pixels; then the seeing blurs the whole.

    Parameters
    ----------
    zernikes
        Coefficients [um] of coma x, coma y and astigmatism, each as annular gradients in that order.
    """
    import cv2

    radius_px = donut_radius_px(defocus_mm, f_ratio, pixel_mm)
    n = 2 * int(np.ceil(radius_px * 1.15 + 4 * blur_px)) + 1
    grid = np.linspace(-1, 1, max(int(radius_px * 5), 200))
    u, v = np.meshgrid(grid, grid)
    rho = np.hypot(u, v)
    inside = (rho <= 1) & (rho >= OBSCURATION)
    u, v = u[inside], v[inside]
    coma_x, coma_y, astigmatism = (*zernikes, 0.0, 0.0, 0.0)[:3]
    # dx = 2 N dW/du; micrometres of wavefront to pixels.
    scale = 2 * f_ratio / (pixel_mm * 1000)
    r2 = u * u + v * v
    gx = (
        coma_x * np.sqrt(8) * (9 * u * u + 3 * v * v - 2)
        + coma_y * np.sqrt(8) * 6 * u * v
        + astigmatism * np.sqrt(6) * 2 * u
    )
    gy = (
        coma_x * np.sqrt(8) * 6 * u * v
        + coma_y * np.sqrt(8) * (3 * u * u + 9 * v * v - 2)
        - astigmatism * np.sqrt(6) * 2 * v
    )
    del r2
    sign = 1.0 if defocus_mm > 0 else -1.0
    x = n // 2 + sign * radius_px * u + scale * gx
    y = n // 2 + sign * radius_px * v + scale * gy
    image = np.zeros((n, n), dtype=np.float64)
    left, bottom = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - left, y - bottom
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            good = (left + dx >= 0) & (left + dx < n) & (bottom + dy >= 0) & (bottom + dy < n)
            np.add.at(image, ((bottom + dy)[good], (left + dx)[good]), (wx * wy)[good])
    blurred = cv2.GaussianBlur(image, (0, 0), blur_px)
    return np.asarray(blurred / blurred.sum(), dtype=np.float32)


def _add_sources(
    exposure: PlannedExposure, camera: Camera, detector: Detector, image: NDArray[np.float32]
) -> StarTruth:
    scale = camera.plate_scale_arcsec_per_mm * detector.pixel_mm
    x, y, magnitude = catalogue(camera, detector, exposure.field_seed, exposure.stars_per_detector)
    flux = exposure.transparency * exposure.exposure_time_s * 10 ** (0.4 * (ZERO_POINT - magnitude))
    fwhm, e1, e2 = psf_of(exposure, detector, camera)
    fwhm_px = max(fwhm / scale, 1.2)
    if exposure.defocus_mm:
        template = donut_template(
            exposure.defocus_mm,
            max(fwhm_px / 2.355, 0.6),
            camera.f_ratio,
            detector.pixel_mm,
            tuple(exposure.zernikes_um),
        )
        # Faint stars vanish in the sky when defocused; bright ones that overlap would be useless to anyone.
        donut_px = donut_radius_px(exposure.defocus_mm, camera.f_ratio, detector.pixel_mm)
        chosen = _apart(x, y, np.argsort(magnitude), 2.6 * donut_px, N_DONUTS)
        x, y, flux = x[chosen], y[chosen], flux[chosen]
        kernels.add_templates(image, x, y, flux, template)
    elif has_corner_donuts(exposure, camera, detector):
        donut_px = donut_radius_px(detector.z_mm, camera.f_ratio, detector.pixel_mm)
        chosen = _apart(x, y, np.argsort(magnitude), 2.6 * donut_px, N_DONUTS)
        x, y, flux = np.round(x[chosen]), np.round(y[chosen]), flux[chosen]
        add_corner_donuts(
            image, x, y, flux, exposure=exposure, camera=camera, detector=detector, fwhm_arcsec=exposure.seeing_arcsec
        )
    else:
        alpha = fwhm_px / (2 * np.sqrt(2 ** (1 / BETA) - 1))
        radius = np.clip(fwhm_px * (2.5 + 0.8 * np.log10(np.maximum(flux, 10) / 10)), 4, 60).astype(np.int64)
        n = len(x)
        kernels.add_stars(image, x, y, flux, np.full(n, alpha), np.full(n, e1), np.full(n, e2), BETA, radius)
    return StarTruth(x=x, y=y, flux_e=flux, fwhm_px=fwhm_px, e1=e1, e2=e2)


def _add_cosmic_rays(rng: np.random.Generator, image: NDArray[np.float32], rate: float) -> None:
    for _ in range(int(rng.poisson(rate))):
        x, y = rng.uniform(0, image.shape[1]), rng.uniform(0, image.shape[0])
        length, angle = rng.exponential(12.0) + 1.0, rng.uniform(0, np.pi)
        steps = np.arange(0, length, 0.5)
        xs = (x + steps * np.cos(angle)).astype(int)
        ys = (y + steps * np.sin(angle)).astype(int)
        good = (xs >= 0) & (xs < image.shape[1]) & (ys >= 0) & (ys < image.shape[0])
        np.add.at(image, (ys[good], xs[good]), np.float32(rng.uniform(200, 3000)))


class Renderer:
    """Renders raws of one simulated camera; keeps its buffers. One per thread."""

    def __init__(self, camera: Camera, seed: int) -> None:
        self.camera = camera
        self.seed = seed
        self._truth: dict[int, DetectorTruth] = {}

    def truth_of(self, detector: Detector) -> DetectorTruth:
        """Return the truth of a CCD."""
        if detector.id not in self._truth:
            self._truth[detector.id] = detector_truth(detector, self.seed)
        return self._truth[detector.id]

    def render(self, exposure: PlannedExposure, detector: Detector) -> tuple[NDArray[np.int32], StarTruth | None]:
        """Render one CCD's exposure.

        Returns
        -------
        stack : ndarray of shape (n_amps, raw_height, raw_width), int32, ADU
        stars : StarTruth or None
            None if the shutter stayed closed or looked at a lamp.
        """
        truth = self.truth_of(detector)
        pool = normal_pool()
        rng = rng_of(self.seed, exposure.exposure_id, detector.id, 3)
        fixed = rng_of(truth.pattern_seed, detector.id, 4)
        shape = (detector.height, detector.width)
        response_offsets = _offsets(fixed, detector.height, detector.width)
        stars: StarTruth | None = None
        light = np.empty((0, 0), dtype=np.float32)
        if exposure.sees_sky:
            light = np.zeros(shape, dtype=np.float32)
            stars = _add_sources(exposure, self.camera, detector, light)
        signal = np.empty(shape, dtype=np.float32)
        vig_a, vig_b = vignetting(self.camera)
        w_mm, h_mm = detector.focal_plane_size_mm
        kernels.expose(
            light,
            exposure.level_e,
            truth.dark_current_e_s * exposure.dark_time_s,
            detector.x_mm - w_mm / 2,
            detector.y_mm - h_mm / 2,
            detector.pixel_mm,
            vig_a,
            vig_b,
            PIXEL_RESPONSE_SCATTER,
            pool,
            response_offsets,
            signal,
        )
        signal[truth.hot_y, truth.hot_x] += truth.hot_rate_e_s * np.float32(exposure.dark_time_s)
        if exposure.level_e:
            signal[:, truth.bad_columns] *= np.float32(0.3)
        if exposure.dark_time_s > 0:
            area_cm2 = shape[0] * shape[1] * (detector.pixel_mm / 10) ** 2
            # About one muon per square centimetre and minute at the site's altitude, a little more.
            _add_cosmic_rays(rng, signal, 0.03 * area_cm2 * exposure.dark_time_s)
        return self._read_out(signal, detector, truth, rng, fixed), stars

    def _read_out(
        self,
        signal: NDArray[np.float32],
        detector: Detector,
        truth: DetectorTruth,
        rng: np.random.Generator,
        fixed: np.random.Generator,
    ) -> NDArray[np.int32]:
        pool = normal_pool()
        first = detector.amps[0]
        counts = np.empty((len(detector.amps), first.raw_height, first.raw_width), dtype=np.float32)
        for place, (amp, electronics) in enumerate(zip(detector.amps, truth.amps, strict=True)):
            pattern = _offsets(fixed, amp.data.height + 1, amp.data.width)
            pattern[-1] = amp.data.width
            kernels.read_out(
                signal,
                amp.flip_x,
                amp.flip_y,
                amp.trimmed.x0,
                amp.trimmed.y0,
                amp.data.x0,
                electronics.gain,
                electronics.read_noise,
                electronics.bias_level_adu,
                electronics.bias_slope_adu,
                electronics.row_slope_adu,
                electronics.saturation_e,
                NONLINEARITY,
                FIXED_PATTERN_E,
                pattern,
                pool,
                _offsets(rng, amp.raw_height, amp.raw_width),
                counts[place],
            )
        self._add_crosstalk(counts, truth)
        np.rint(counts, out=counts)
        np.clip(counts, 0, ADC_MAX, out=counts)
        return counts.astype(np.int32)

    @staticmethod
    def _add_crosstalk(counts: NDArray[np.float32], truth: DetectorTruth) -> None:
        """Add to every amp what the others leak, in counts above their bias."""
        levels = np.array([amp.bias_level_adu for amp in truth.amps], dtype=np.float32)
        flat = counts.reshape(len(counts), -1)
        # In electrons the coefficient is that of the truth; gains differ between amps.
        gains = np.array([amp.gain for amp in truth.amps], dtype=np.float32)
        matrix = truth.crosstalk * gains[None, :] / gains[:, None]
        # In pieces that stay in the cache, and that no library spreads over threads: those would wait for each other
        # while the system that is replayed wants the cores.
        for first in range(0, flat.shape[1], CROSSTALK_PX):
            piece = flat[:, first : first + CROSSTALK_PX]
            piece += matrix @ (piece - levels[:, None])
