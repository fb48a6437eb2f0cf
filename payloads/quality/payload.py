"""The payload ``quality``: image quality of one detector."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from payloads.focus.donut import DonutSettings, donut_columns, donut_metrics, measure_donuts
from payloads.plugin import Frame, Metric, PayloadConfig
from payloads.quality.calibrate import CALIBRATION_METRICS, StarCalibrator
from payloads.quality.measure import SIGMA_TO_FWHM, Quality, Settings, measure_quality, robust_scatter
from payloads.quality.mode import Mode, choose_mode
from payloads.quality.photometry import MAGNITUDE
from payloads.quality.sky import Workspace, choose_bin_factor, measure_sky
from payloads.quality.standard import band_of, standardise_fwhm
from payloads.quality.zero_point import PACKAGED, load_reference_values

PSF_METRICS = (
    "psf_fwhm_arcsec",
    "psf_fwhm_scatter_arcsec",
    "psf_fwhm_direct_arcsec",
    "psf_fwhm_zenith_arcsec",
    "psf_sigma_px",
    "psf_ixx_px2",
    "psf_iyy_px2",
    "psf_ixy_px2",
    "psf_e",
    "psf_e1",
    "psf_e2",
    "psf_e1_scatter",
    "psf_e2_scatter",
    "psf_coma1",
    "psf_coma2",
    "psf_trefoil1",
    "psf_trefoil2",
    "psf_kurtosis",
    "psf_e4_1",
    "psf_e4_2",
    *CALIBRATION_METRICS,
)
"""Every key is in every result of the payload, None where it could not be measured."""


class QualityConfig(PayloadConfig):
    """How to measure image quality."""

    mode: Mode | None = Field(default=None, description="Measure this way; None: by image type and defocus.")
    n_max_stars: int = Field(default=200, ge=5, description="Brightest candidates whose moments are measured.")
    min_snr: float = Field(default=50.0, gt=0, description="Least S/N of a PSF star; relaxed if too few are found.")
    min_psf_stars: int = Field(default=5, ge=3, description="With fewer than this, fainter stars are taken too.")
    min_stars_sane: int = Field(default=20, ge=0, description="Fewer star-like sources than this: star_count_ok false.")
    detection_sigma: float = Field(default=5.0, gt=0, description="Detection threshold over the sky noise.")
    bin_factor: int | None = Field(default=None, ge=1, le=16, description="Binning for sky and detection [px].")
    aperture_fwhm: float = Field(default=2.0, gt=0, description="Radius of the flux aperture, in FWHM.")
    reference_catalogue: Path | None = Field(
        default=None, description="Directory of a reference catalogue; without one there is no zero point."
    )
    reference_values: Path | None = Field(
        default=None, description="Clear-sky zero points and extinctions (YAML); those of the package if left out."
    )
    max_pointing_error_arcsec: float = Field(
        default=60.0, gt=0, le=600, description="How far the header's pointing may be off."
    )
    donut: DonutSettings = Field(default=DonutSettings(), description="Used when stars are donuts.")


class ImageQuality:
    """Sky, stars and PSF of one detector.

    Writes the metrics ``quality_mode``, ``sky_level_e``, ``sky_noise_e``, ``sky_gradient_e``, ``n_saturated_px``,
    ``n_bad_px``, ``n_sources``, ``n_stars``, ``n_psf_stars``, ``star_count_ok``, ``quality_note`` and `PSF_METRICS`,
    and the table ``stars``.

    Notes
    -----
    ``psf_fwhm_arcsec`` is 2.355 sigma of the adaptive moments, the convention of the LSST pipelines;
    ``psf_fwhm_direct_arcsec`` is the width at half maximum of the stacked profile. They agree for a Gaussian only.
    Ellipticities are distortions (a^2-b^2)/(a^2+b^2) in the detector's pixel frame. Medians over the PSF stars;
    scatters are 1.4826 MAD. Higher moments are of the image weighted by its adaptive Gaussian, in units of its width:
    a Gaussian has kurtosis 2 and all others 0.
    """

    name: ClassVar[str] = "quality"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[PayloadConfig]] = QualityConfig

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        self._workspace = Workspace()
        self._settings = Settings(
            n_max_stars=config.n_max_stars,
            snr_steps=(config.min_snr, *(s for s in (20.0, 10.0) if s < config.min_snr)),
            min_psf_stars=config.min_psf_stars,
            detection_sigma=config.detection_sigma,
            bin_factor=config.bin_factor,
            aperture_fwhm=config.aperture_fwhm,
        )
        self._calibrator = StarCalibrator(
            config.reference_catalogue,
            load_reference_values(config.reference_values or PACKAGED),
            max_pointing_error_arcsec=config.max_pointing_error_arcsec,
        )

    def preload(self, sky: tuple[float, float], bands: frozenset[str]) -> None:
        """Read the reference catalogue of an announced field; see `payloads.quality.calibrate.StarCalibrator`."""
        self._calibrator.preload(sky, bands)

    def run(self, frame: Frame) -> None:
        """Measure the frame's image.

        Raises
        ------
        PayloadError
            Raised if no payload has assembled the image yet.
        """
        mode = self.config.mode or choose_mode(frame.info, frame.camera, frame.detector)
        frame.metrics["quality_mode"] = mode.value
        if mode is Mode.SKIP:
            return
        frame.image = np.ascontiguousarray(frame.assembled("quality"), dtype=np.float32)
        if mode is Mode.PHOTO:
            self._measure_stars(frame, frame.image)
        else:
            self._measure_sky_only(frame, frame.image)
        if mode is Mode.DONUT:
            donuts = measure_donuts(
                frame.image,
                frame.mask,
                camera=frame.camera,
                detector=frame.detector,
                info=frame.info,
                gain=frame.gain,
                settings=self.config.donut,
            )
            frame.metrics.update(donut_metrics(donuts))
            frame.tables["donuts"] = donut_columns(donuts)

    def _measure_sky_only(self, frame: Frame, image: Any) -> None:
        scale = frame.camera.plate_scale_arcsec_per_mm * frame.detector.pixel_mm
        factor = self.config.bin_factor or choose_bin_factor(scale, *image.shape)
        sky = measure_sky(image, frame.mask, factor=factor, workspace=self._workspace)
        gain = frame.gain
        frame.metrics.update(_sky_metrics(sky.level, sky.noise, sky.gradient, gain))
        frame.metrics.update({"n_saturated_px": sky.n_saturated_px, "n_bad_px": sky.n_bad_px})

    def _measure_stars(self, frame: Frame, image: Any) -> None:
        scale = frame.camera.plate_scale_arcsec_per_mm * frame.detector.pixel_mm
        gain = frame.gain
        quality = measure_quality(
            image,
            frame.mask,
            pixel_scale_arcsec=scale,
            gain=gain,
            settings=self._settings,
            workspace=self._workspace,
        )
        sky = quality.sky
        metrics: dict[str, Metric] = dict.fromkeys(PSF_METRICS)
        metrics |= _sky_metrics(sky.level, sky.noise, sky.gradient, gain)
        metrics |= {
            "n_saturated_px": sky.n_saturated_px,
            "n_bad_px": sky.n_bad_px,
            "n_sources": len(quality.sources),
            "n_stars": quality.n_star_like,
            "n_psf_stars": int(np.count_nonzero(quality.stars.is_psf)) if quality.has_psf else 0,
            "star_count_ok": quality.has_psf and quality.n_star_like >= self.config.min_stars_sane,
            "quality_note": quality.note or None,
        }
        if quality.has_psf:
            metrics |= _psf_metrics(quality, scale)
            fwhm = metrics["psf_fwhm_arcsec"]
            band = band_of(frame.info.band, frame.info.physical_filter)
            if isinstance(fwhm, float):
                metrics["psf_fwhm_zenith_arcsec"] = standardise_fwhm(fwhm, airmass=frame.info.airmass, band=band)
        stars = star_columns(quality, scale, gain=gain, exposure_time_s=frame.info.exposure_time_s)
        metrics |= self._calibrator.run(frame, quality, stars, gain=gain)
        frame.metrics.update(metrics)
        frame.tables["stars"] = stars


def _sky_metrics(level: float | None, noise: float | None, gradient: float | None, gain: float) -> dict[str, Metric]:
    return {
        "sky_level_e": None if level is None else level * gain,
        "sky_noise_e": None if noise is None else noise * gain,
        "sky_gradient_e": None if gradient is None else gradient * gain,
    }


def _psf_metrics(quality: Quality, scale_arcsec: float) -> dict[str, Metric]:
    """Return the medians over the PSF stars."""
    stars, psf = quality.stars, quality.stars.is_psf
    fwhm_arcsec = SIGMA_TO_FWHM * stars.sigma_px[psf] * scale_arcsec
    e1, e2 = stars.e1[psf], stars.e2[psf]
    higher = {name: float(np.median(values[psf])) for name, values in stars.named_higher().items()}
    return {
        "psf_fwhm_arcsec": float(np.median(fwhm_arcsec)),
        "psf_fwhm_scatter_arcsec": robust_scatter(fwhm_arcsec),
        "psf_fwhm_direct_arcsec": quality.profile.fwhm_px * scale_arcsec if quality.profile else None,
        "psf_sigma_px": float(np.median(stars.sigma_px[psf])),
        "psf_ixx_px2": float(np.median(stars.ixx[psf])),
        "psf_iyy_px2": float(np.median(stars.iyy[psf])),
        "psf_ixy_px2": float(np.median(stars.ixy[psf])),
        "psf_e": math.hypot(float(np.median(e1)), float(np.median(e2))),
        "psf_e1": float(np.median(e1)),
        "psf_e2": float(np.median(e2)),
        "psf_e1_scatter": robust_scatter(e1),
        "psf_e2_scatter": robust_scatter(e2),
        **{f"psf_{name}": value for name, value in higher.items()},
    }


def star_columns(
    quality: Quality, scale_arcsec: float, *, gain: float, exposure_time_s: float | None
) -> dict[str, list[Any]]:
    """Return the table of measured stars, one list per column, brightest first.

    ``instrument_mag`` is -2.5 log10 of electron per second (electron, if the exposure time is not known); None for
    a flux that is not positive.
    """
    stars, fluxes = quality.stars, quality.fluxes
    rate = fluxes.flux / exposure_time_s if exposure_time_s else fluxes.flux
    magnitude = [float(-MAGNITUDE * math.log(value)) if value > 0.0 else None for value in rate]
    return {
        "x": stars.x.tolist(),
        "y": stars.y.tolist(),
        "flux_e": fluxes.flux.tolist(),
        "flux_error_e": fluxes.error.tolist(),
        "snr": fluxes.snr.tolist(),
        "instrument_mag": magnitude,
        "fwhm_arcsec": (SIGMA_TO_FWHM * stars.sigma_px * scale_arcsec).tolist(),
        "e1": stars.e1.tolist(),
        "e2": stars.e2.tolist(),
        "ixx_px2": stars.ixx.tolist(),
        "iyy_px2": stars.iyy.tolist(),
        "ixy_px2": stars.ixy.tolist(),
        **{name: values.tolist() for name, values in stars.named_higher().items()},
        "peak_e": (stars.peak * gain).tolist(),
        "background_e": (stars.background * gain).tolist(),
        "is_psf_star": stars.is_psf.tolist(),
    }
