"""The payload ``guider_trend``: a star through the stamps of a guider file."""

from datetime import datetime
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from payloads.guider.kernels import FWHM_OF_SIGMA, StarPosition, find_star, fit_line, measure_star
from payloads.guider.movie import make_movie
from payloads.plugin import Frame, Metric, PayloadConfig, ProductFile
from payloads.raw.guider import Stamp, read_stamps
from rapid.errors import PayloadError
from rapid.exposure.fits_header import scan

DAY_S = 86_400.0
MIN_FOR_TREND = 3
"""Stamps with a star that a straight line is fitted to."""


class GuiderTrend:
    """Centroid, light and width of the star in each stamp, and how they change in time.

    Writes the table ``guider_star`` (a row a stamp), the movie ``guider_movie``, and the metrics ``guider_*``: numbers are None
    where no star was found.
    """

    name: ClassVar[str] = "guider_trend"
    version: ClassVar[str] = "1"

    class Config(PayloadConfig):
        """What counts as a star."""

        threshold_sigma: float = Field(default=5.0, gt=0, description="How far it must stand out of the mean stamp.")
        min_snr: float = Field(default=5.0, gt=0, description="Of the star's light in a stamp; below it is not there.")
        reach_px: float = Field(default=12.0, gt=0, description="How far it may move from where the mean stamp has it.")
        movie: bool = Field(default=True, description="Make a movie of the stamps.")

    def __init__(self, config: "GuiderTrend.Config") -> None:
        self.config = config

    def run(self, frame: Frame) -> None:
        """Measure the stamps.

        Raises
        ------
        PayloadError
            Raised if the raw is no guider file, or its stamps are of different sizes.
        CorruptRawError
            Raised if they cannot be decoded.
        """
        if frame.raw is None or not frame.info.is_guider:
            raise PayloadError("guider_trend needs the raw of a guider file")
        taken = list(read_stamps(scan(frame.raw)))
        if len({stamp.image.shape for stamp in taken}) != 1:
            raise PayloadError("the stamps of the guider file have different sizes")
        images = np.stack([stamp.image for stamp in taken])
        time_s = times_of(taken)
        stars = self._follow(images)
        scale = frame.camera.plate_scale_arcsec_per_mm * frame.detector.pixel_mm
        frame.tables["guider_star"] = _table(stars, time_s, scale)
        frame.metrics.update(trend_metrics(stars, time_s, scale))
        frame.applied.append("guider_trend")
        if self.config.movie and float(np.ptp(images)) > 0:
            path = np.array([(star.x_px, star.y_px) if star else (np.nan, np.nan) for star in stars])
            frame.files["guider_movie"] = ProductFile(make_movie(images, path), "mp4", "video/mp4")

    def _follow(self, images: NDArray[np.float32]) -> list[StarPosition | None]:
        where = find_star(images, threshold_sigma=self.config.threshold_sigma)
        if where is None:
            return [None] * len(images)
        found = (measure_star(image, where, reach_px=self.config.reach_px) for image in images)
        return [star if star is not None and star.snr >= self.config.min_snr else None for star in found]


def times_of(stamps: list[Stamp]) -> NDArray[np.float64] | None:
    """Return when stamps were taken, seconds after the first; None if any of them does not say, or not as the others do."""
    if len({type(stamp.time) is str for stamp in stamps}) > 1:
        return None  # one clock counts days, the other has a date
    seconds = []
    for stamp in stamps:
        if isinstance(stamp.time, str):
            try:
                seconds.append(datetime.fromisoformat(stamp.time.rstrip("Z")).timestamp())
            except ValueError:
                return None
        elif stamp.time is not None and not isinstance(stamp.time, bool):
            seconds.append(float(stamp.time) * DAY_S)
        else:
            return None
    at = np.array(seconds)
    return at - at[0] if np.isfinite(at).all() else None


def _table(stars: list[StarPosition | None], time_s: NDArray[np.float64] | None, scale: float) -> dict[str, list[Any]]:
    names = ("x_px", "y_px", "flux_adu", "snr", "ellipticity")
    table: dict[str, list[Any]] = {
        "stamp": list(range(len(stars))),
        "time_s": [None] * len(stars) if time_s is None else [float(t) for t in time_s],
        **{name: [None if star is None else float(getattr(star, name)) for star in stars] for name in names},
    }
    table["snr"] = [snr if snr is not None and np.isfinite(snr) else None for snr in table["snr"]]
    table["fwhm_arcsec"] = [None if star is None else FWHM_OF_SIGMA * star.sigma_px * scale for star in stars]
    return table


def trend_metrics(
    stars: list[StarPosition | None], time_s: NDArray[np.float64] | None, scale: float
) -> dict[str, Metric]:
    """Return the numbers of a series.

    Parameters
    ----------
    time_s : ndarray of shape (n,), float64, s
        Of each stamp; without it, slopes are None.
    scale
        Size of a pixel [arcsec].

    Notes
    -----
    ``guider_motion_fwhm_arcsec`` is what the motion from stamp to stamp, a straight drift included, adds to the size of a long
    exposure's image, in quadrature: the FWHM of a Gaussian with the mean variance of both axes.
    """
    metrics: dict[str, Metric] = dict.fromkeys(
        (
            "guider_fwhm_arcsec_median", "guider_fwhm_slope_arcsec_per_min", "guider_ellipticity_median",
            "guider_flux_median_adu", "guider_flux_scatter_percent", "guider_flux_slope_percent_per_min",
            "guider_jitter_x_arcsec", "guider_jitter_y_arcsec", "guider_drift_x_arcsec_per_min",
            "guider_drift_y_arcsec_per_min", "guider_motion_fwhm_arcsec", "guider_snr_median",
        )
    )  # fmt: skip
    seen = [place for place, star in enumerate(stars) if star is not None]
    found = [star for star in stars if star is not None]
    metrics["guider_n_stamps"] = len(stars)
    metrics["guider_n_with_star"] = len(found)
    if not found:
        return metrics
    x, y = np.array([star.x_px for star in found]) * scale, np.array([star.y_px for star in found]) * scale
    flux = np.array([star.flux_adu for star in found])
    fwhm = FWHM_OF_SIGMA * scale * np.array([star.sigma_px for star in found])
    snr = float(np.median([star.snr for star in found]))
    metrics["guider_fwhm_arcsec_median"] = float(np.median(fwhm))
    metrics["guider_ellipticity_median"] = float(np.median([star.ellipticity for star in found]))
    metrics["guider_flux_median_adu"] = float(np.median(flux))
    metrics["guider_snr_median"] = snr if np.isfinite(snr) else None
    if len(found) < MIN_FOR_TREND:
        return metrics
    at = np.array(seen, dtype=np.float64) if time_s is None else time_s[seen]
    slope_x, rest_x = fit_line(at, x)
    slope_y, rest_y = fit_line(at, y)
    slope_flux, rest_flux = fit_line(at, flux)
    metrics["guider_jitter_x_arcsec"] = float(rest_x.std())
    metrics["guider_jitter_y_arcsec"] = float(rest_y.std())
    metrics["guider_flux_scatter_percent"] = 100.0 * float(rest_flux.std()) / float(flux.mean())
    metrics["guider_motion_fwhm_arcsec"] = FWHM_OF_SIGMA * float(np.sqrt(0.5 * (x.var() + y.var())))
    if time_s is not None and float(np.ptp(at)) > 0:
        metrics["guider_drift_x_arcsec_per_min"] = 60.0 * slope_x
        metrics["guider_drift_y_arcsec_per_min"] = 60.0 * slope_y
        metrics["guider_flux_slope_percent_per_min"] = 6000.0 * slope_flux / float(flux.mean())
        metrics["guider_fwhm_slope_arcsec_per_min"] = 60.0 * fit_line(at, fwhm)[0]
    return metrics
