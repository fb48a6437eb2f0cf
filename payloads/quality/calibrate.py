"""Put the measured stars on the sky and on the magnitude scale, if a reference catalogue says which is which."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payloads.plugin import Frame, Metric
from payloads.quality.astrometry import Pointing, Solution, pixels_to_field_angle, solve, unproject
from payloads.quality.catalogue import CatalogueStars, ReferenceCatalogue
from payloads.quality.measure import Quality
from payloads.quality.photometry import MAGNITUDE
from payloads.quality.standard import band_of
from payloads.quality.zero_point import (
    BandValues,
    ReferenceValues,
    ZeroPoint,
    fit_zero_point,
    load_reference_values,
    magnitude_limit,
    transparency_of,
)
from rapid.errors import ConfigurationError, StoreError

CALIBRATION_METRICS = (
    "zero_point_mag",
    "zero_point_error_mag",
    "zero_point_system",
    "n_zero_point_stars",
    "transparency",
    "transparency_error",
    "magnitude_limit_5sigma",
    "aperture_loss_mag",
    "pointing_offset_ra_arcsec",
    "pointing_offset_dec_arcsec",
    "pointing_rotation_deg",
    "astrometry_rms_arcsec",
    "n_astrometry_stars",
    "calibration_note",
)
"""Every key is in every result of a photo, None where it could not be measured."""


def pointing_of(frame: Frame) -> Pointing | None:
    """Return where the header says the camera looks; None if it does not say."""
    info = frame.info
    if info.ra_deg is None or info.dec_deg is None:
        return None
    return Pointing(info.ra_deg, info.dec_deg, info.rotator_angle_deg or 0.0)


def aperture_loss_mag(quality: Quality) -> float:
    """Return by how much the stars' whole light is brighter than what their aperture held; 0 without a profile."""
    enclosed = quality.profile.enclosed(quality.aperture_px) if quality.profile else 1.0
    return -MAGNITUDE * math.log(enclosed) if 0.5 < enclosed <= 1.0 else 0.0


def learn_stars(
    frames: Iterable[Frame], *, values: ReferenceValues | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float64]], int]:
    """Return the PSF stars of measured frames as a relative reference, for a catalogue of system ``instrument``.

    Parameters
    ----------
    frames
        After payload ``quality``; those without a place, band, airmass or exposure time are passed over.
    values
        Extinction per airmass; those of the package if left out.

    Returns
    -------
    ra_deg, dec_deg : ndarray of shape (n,)
    magnitudes : dict of ndarray of shape (n,)
        Whole light, -2.5 log10 of electron per second, at airmass 1; NaN in the other bands.
    n_frames
        How many frames gave stars.
    """
    known = values or load_reference_values()
    places: list[tuple[float, float]] = []
    rows: list[tuple[str, float]] = []
    n_frames = 0
    for frame in frames:
        info, stars = frame.info, frame.tables.get("stars", {})
        band = band_of(info.band, info.physical_filter)
        loss = frame.metrics.get("aperture_loss_mag")
        if band is None or info.airmass is None or not info.exposure_time_s or not isinstance(loss, float):
            continue
        clear = known.of(info.camera, band, info.day_obs)
        below = (clear.extinction_mag if clear else 0.0) * (info.airmass - 1.0)
        found = [
            ((ra, dec), (band, magnitude - loss - below))
            for ra, dec, magnitude, is_psf in zip(
                stars["ra_deg"], stars["dec_deg"], stars["instrument_mag"], stars["is_psf_star"], strict=True
            )
            if is_psf and ra is not None and magnitude is not None
        ]
        n_frames += bool(found)
        places += [place for place, _ in found]
        rows += [row for _, row in found]
    table = np.array(places, dtype=np.float64).reshape(-1, 2)
    magnitudes = {
        band: np.array([magnitude if own == band else np.nan for own, magnitude in rows])
        for band in sorted({band for band, _ in rows})
    }
    return table[:, 0], table[:, 1], magnitudes, n_frames


FIELD_RADIUS_DEG = 1.8
"""Of the widest camera: the corners of LSSTCam's science rafts are at 1.75 degrees."""


class StarCalibrator:
    """Matches stars to a catalogue.

    Parameters
    ----------
    catalogue
        Its directory; None: stars get the header's positions, and no zero point. It is opened when it is first needed,
        and as often again as it cannot be: a night goes on without it, and with it once it is there.
    values
        What the instruments give under a clear sky.
    max_pointing_error_arcsec
        How far the header's pointing may be off.
    """

    def __init__(self, catalogue: Path | None, values: ReferenceValues, *, max_pointing_error_arcsec: float) -> None:
        self._directory = catalogue
        self._catalogue: ReferenceCatalogue | None = None
        self._values = values
        self._radius_arcsec = max_pointing_error_arcsec

    def preload(self, sky: tuple[float, float], bands: frozenset[str]) -> None:
        """Read the catalogue's tiles of a field before its first exposure.

        Parameters
        ----------
        sky
            Right ascension and declination of its centre, ICRS [deg].
        bands
            Those it may be taken in; nothing is read for one the catalogue does not have.
        """
        if self._directory is None:
            return
        catalogue = self._catalogue = self._catalogue or ReferenceCatalogue(self._directory)
        for band in bands & set(catalogue.facts.bands):
            catalogue.stars_around(*sky, FIELD_RADIUS_DEG, band)

    def run(self, frame: Frame, quality: Quality, stars: dict[str, list[Any]], *, gain: float) -> dict[str, Metric]:
        """Add ``ra_deg`` and ``dec_deg`` to the star table; return `CALIBRATION_METRICS`.

        Parameters
        ----------
        stars
            As from `payloads.quality.payload.star_columns`; gains two columns.
        gain
            Electron per unit of the image.
        """
        metrics: dict[str, Metric] = dict.fromkeys(CALIBRATION_METRICS)
        n = len(stars["x"])
        pointing = pointing_of(frame)
        stars["ra_deg"] = [None] * n
        stars["dec_deg"] = [None] * n
        if n == 0 or not quality.has_psf:
            return metrics
        metrics["aperture_loss_mag"] = loss = aperture_loss_mag(quality)
        if pointing is None:
            metrics["calibration_note"] = "the header has no pointing" if self._directory else None
            return metrics
        angles = pixels_to_field_angle(frame.camera, frame.detector, stars["x"], stars["y"])
        ra, dec = unproject(pointing.to_plane(*angles), centre_ra_deg=pointing.ra_deg, centre_dec_deg=pointing.dec_deg)
        band = band_of(frame.info.band, frame.info.physical_filter)
        solution, note = self._solve(frame, pointing, band, stars)
        metrics["calibration_note"] = note
        if solution is not None:
            ra, dec = solution.ra_deg, solution.dec_deg
            metrics |= self._astrometry(frame, solution)
            metrics |= self._photometry(frame, quality, solution, stars, loss, band, gain)
        stars["ra_deg"], stars["dec_deg"] = ra.tolist(), dec.tolist()
        return metrics

    def _solve(
        self, frame: Frame, pointing: Pointing, band: str | None, stars: dict[str, list[Any]]
    ) -> tuple[Solution | None, str | None]:
        if self._directory is None:
            return None, None
        try:
            catalogue = self._catalogue = self._catalogue or ReferenceCatalogue(self._directory)
        except ConfigurationError as error:
            return None, error.message
        if band not in catalogue.facts.bands:
            return None, f"catalogue {catalogue.facts.name} has no band {band or 'of this filter'}"
        seen: list[int] = []

        def stars_around(ra_deg: float, dec_deg: float, radius_deg: float) -> CatalogueStars:
            found = catalogue.stars_around(ra_deg, dec_deg, radius_deg, str(band))
            seen.append(len(found))
            return found

        try:
            solution = solve(
                frame.camera,
                frame.detector,
                pointing,
                stars["x"],
                stars["y"],
                stars_around,
                radius_arcsec=self._radius_arcsec,
            )
        except StoreError as error:
            # The widths are worth having without a zero point; the note names the tile.
            return None, error.message
        if solution is None:
            name = catalogue.facts.name
            return None, f"stars could not be matched to catalogue {name}" if any(
                seen
            ) else f"catalogue {name} has no stars here"
        return solution, f"header orientation was {solution.turned}" if solution.turned else None

    @staticmethod
    def _astrometry(frame: Frame, solution: Solution) -> dict[str, Metric]:
        match, camera, detector = solution.match, frame.camera, frame.detector
        middle = pixels_to_field_angle(camera, detector, (detector.width - 1) / 2, (detector.height - 1) / 2)
        point = solution.pointing.to_plane(*middle)
        shift = (match.apply(point) - point)[0]
        return {
            "pointing_offset_ra_arcsec": float(shift[0]),
            "pointing_offset_dec_arcsec": float(shift[1]),
            "pointing_rotation_deg": match.rotation_deg,
            "astrometry_rms_arcsec": match.rms_arcsec,
            "n_astrometry_stars": len(match.first),
        }

    def _photometry(
        self,
        frame: Frame,
        quality: Quality,
        solution: Solution,
        stars: dict[str, list[Any]],
        loss_mag: float,
        band: str | None,
        gain: float,
    ) -> dict[str, Metric]:
        info, catalogue = frame.info, self._catalogue
        if catalogue is None or not info.exposure_time_s:
            return {}
        first, second = solution.match.first, solution.match.second
        is_psf = quality.stars.is_psf[first]
        first, second = first[is_psf], second[is_psf]
        magnitude = np.array([np.nan if m is None else m for m in stars["instrument_mag"]], dtype=np.float64)
        flux, error = quality.fluxes.flux[first], quality.fluxes.error[first]
        with np.errstate(divide="ignore", invalid="ignore"):
            error_mag = np.where(flux > 0, MAGNITUDE * error / flux, np.nan)
        found = fit_zero_point(solution.catalogue.mag[second], magnitude[first] - loss_mag, error_mag)
        if found is None:
            return {}
        clear = self._values.of(info.camera, band, info.day_obs)
        is_relative = catalogue.facts.system == "instrument"
        return self._report(found, clear, frame, quality, gain=gain, is_relative=is_relative)

    @staticmethod
    def _report(
        found: ZeroPoint, clear: BandValues | None, frame: Frame, quality: Quality, *, gain: float, is_relative: bool
    ) -> dict[str, Metric]:
        airmass, time_s = frame.info.airmass, frame.info.exposure_time_s or 1.0
        extinction = clear.extinction_mag if clear else 0.0
        zero_point: float | None = found.zero_point_mag
        transparency: float | None = None
        if is_relative and airmass is not None:
            # The catalogue is our own of a good night: what is missing is missing light.
            transparency = transparency_of(
                found.zero_point_mag, clear_mag=0.0, extinction_mag=extinction, airmass=airmass
            )
            zero_point = clear.zero_point_mag + found.zero_point_mag if clear else None
        elif is_relative:
            zero_point = None
        elif clear is not None and airmass is not None:
            transparency = transparency_of(
                found.zero_point_mag,
                clear_mag=clear.zero_point_mag,
                extinction_mag=extinction,
                airmass=airmass,
            )
        limit = None
        noise = quality.sky.noise
        if zero_point is not None and noise:
            sigma = float(np.median(quality.stars.sigma_px[quality.stars.is_psf]))
            limit = magnitude_limit(
                zero_point, sky_noise_e=noise * gain, n_effective_px=4.0 * math.pi * sigma**2, exposure_time_s=time_s
            )
        return {
            "zero_point_mag": zero_point,
            "zero_point_error_mag": found.error_mag,
            "zero_point_system": "instrument" if is_relative else "AB",
            "n_zero_point_stars": found.n_stars,
            "transparency": transparency,
            "transparency_error": None if transparency is None else transparency * found.error_mag / MAGNITUDE,
            "magnitude_limit_5sigma": limit,
        }
