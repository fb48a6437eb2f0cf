"""What templates can be made of: results of a quick look whose calibrated image was kept, with the stars found on it."""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from astropy.io import fits

from payloads.difference.align import Contribution, LeftOut, Pixels, star_rows
from payloads.difference.sky_map import sky_map_of
from payloads.keep.calibrated import read_calibrated
from payloads.mask import MASK_PLANES
from payloads.quality.standard import band_of
from rapid.camera.models import Camera
from rapid.errors import PayloadError, RapidError
from rapid.products.store import ProductsStore
from rapid.results.models import DetectorResult
from rapid.results.store import ResultsStore

NOT_KEPT = "its calibrated image was not kept: put keep_calibrated into its pipeline's afterburner"
NO_DETECTOR = "-"


@dataclass(frozen=True)
class Inputs:
    """What was found.

    Attributes
    ----------
    by_band
        Images that templates can be made of.
    left_out
        The others, and exposures without any, with the reason.
    """

    by_band: dict[str, list[Contribution]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def find_inputs(
    results: ResultsStore,
    products: ProductsStore,
    camera: Camera,
    exposures: Iterable[int],
    *,
    run: str = "prompt",
    band: str | None = None,
    detectors: frozenset[int] | None = None,
    max_fwhm_arcsec: float | None = None,
) -> Inputs:
    """Look for images of exposures that templates can be made of.

    Parameters
    ----------
    run
        Whose results.
    band, detectors
        Only of this band, and of these detectors; of all if None.
    max_fwhm_arcsec
        Worse images are left out.
    """
    found = Inputs()
    for exposure in sorted(set(exposures)):
        rows: dict[int, list[DetectorResult]] = {}
        for result in results.results(exposure, camera=camera.name, run=run):
            if detectors is None or result.detector in detectors:
                rows.setdefault(result.detector, []).append(result)
        if not rows:
            found.left_out.append(LeftOut(exposure, NO_DETECTOR, f"no result of it in run {run}"))
        for number in sorted(rows):
            result = _best(rows[number])
            name = band_of(None, result.physical_filter)
            if band is not None and name != band:
                continue
            try:
                if name is None:
                    raise PayloadError(f"the band of filter {result.physical_filter} is not known")
                one = _contribution(result, products, camera, max_fwhm_arcsec=max_fwhm_arcsec)
            except RapidError as error:
                found.left_out.append(LeftOut(exposure, result.detector_name, error.message))
                continue
            found.by_band.setdefault(name, []).append(one)
    return found


def _best(rows: list[DetectorResult]) -> DetectorResult:
    """Return, of a detector's results, the one with a kept image; else with stars, of the quick look if it is among them."""
    return max(
        rows, key=lambda row: ("calibrated" in row.products, "stars" in row.products, row.pipeline == "quicklook")
    )


def _contribution(
    result: DetectorResult, products: ProductsStore, camera: Camera, *, max_fwhm_arcsec: float | None
) -> Contribution:
    metrics = result.metrics
    if metrics.get("quality_mode", "photo") != "photo" or "stars" not in result.products:
        raise PayloadError(f"{result.pipeline} measured no stars in focus")
    if "calibrated" not in result.products:
        raise PayloadError(NOT_KEPT)
    fwhm = metrics.get("psf_fwhm_arcsec")
    if not isinstance(fwhm, float):
        raise PayloadError("its PSF was not measured")
    if max_fwhm_arcsec is not None and fwhm > max_fwhm_arcsec:
        raise PayloadError(f"FWHM of {fwhm:.2f} arcsec")
    if not result.exposure_time_s:
        raise PayloadError("its exposure time is not known")
    detector = camera.by_id.get(result.detector)
    if detector is None:
        raise PayloadError(f"{camera.name} has no detector {result.detector}")
    table = _table(products, result.products["stars"])
    header = _header(products, result.products["calibrated"])
    if "RA" not in header:
        raise PayloadError("its calibrated image does not say where it looks: it was kept by an older version")
    zero_point, system = metrics.get("zero_point_mag"), metrics.get("zero_point_system")
    loss = metrics.get("aperture_loss_mag")
    return Contribution(
        exposure_id=result.exposure,
        camera=camera,
        detector=detector,
        exposure_time_s=result.exposure_time_s,
        sky_map=sky_map_of(camera, detector, ra_deg=header["RA"], dec_deg=header["DEC"], stars=table),
        stars=star_rows(table, aperture_loss_mag=loss if isinstance(loss, float) else None),
        fwhm_arcsec=fwhm,
        load=_loader(products, result.products["calibrated"]),
        zero_point_mag=zero_point if isinstance(zero_point, float) else None,
        zero_point_system=str(system) if isinstance(zero_point, float) else None,
        is_solved=isinstance(metrics.get("n_astrometry_stars"), int),
        source=result.products["calibrated"],
    )


def _table(products: ProductsStore, key: str) -> dict[str, Any]:
    try:
        table = json.loads(products.get(key))
    except ValueError as error:
        raise PayloadError(f"product {key} is not JSON") from error
    if not isinstance(table, dict):
        raise PayloadError(f"product {key} is no table")
    return table


def _header(products: ProductsStore, key: str) -> Mapping[str, Any]:
    try:
        with fits.open(io.BytesIO(products.get(key)), memmap=False) as hdus:
            return dict(hdus[0].header)
    except OSError as error:
        raise PayloadError(f"product {key} is no FITS file") from error


def _loader(products: ProductsStore, key: str) -> Callable[[], Pixels]:
    return partial(_load, products, key)


def _load(products: ProductsStore, key: str) -> Pixels:
    try:
        found = read_calibrated(products.get(key))
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise PayloadError(f"product {key} is no calibrated image: {error}") from error
    if dict(found.mask_planes) != MASK_PLANES:
        raise PayloadError(f"product {key} has other mask planes than those of now")
    return found.image, found.variance, found.mask
