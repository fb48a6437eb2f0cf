"""Add what several exposures tell together: best focus of a sweep, focus offset of a donut pair.

A sweep's plot is not drawn here, where a summary is waited for: its points are kept, and `rapid.gather.studio_child` draws
them later.
"""

import structlog
from pydantic import BaseModel, ConfigDict

from payloads.focus.donut import focus_offset_um
from payloads.focus.sweep import FocusFit, fit_focus_sweep
from rapid.camera.store import load_camera
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType
from rapid.exposure.pairs import FOCUSZ_REVERSED
from rapid.products.naming import summary_key
from rapid.products.store import ProductsStore
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

MIN_POINTS = 4
"""A quadrature curve has three parameters; fewer points than four say nothing about their own error."""


POINTS = "focus_sweep_points"
"""The product that keeps a sweep's points."""


class SweepPoints(BaseModel):
    """What a sweep's fit was made of: its plot shows the same points, whatever has come since."""

    model_config = ConfigDict(extra="forbid")

    exposures: list[int]
    z_mm: list[float]
    fwhm_arcsec: list[float]

    def fit(self) -> FocusFit:
        """Return the curve through the points; raises `PayloadError` or `ValueError` where there is none."""
        return fit_focus_sweep(self.z_mm, self.fwhm_arcsec)


def group_of(summary: ExposureSummary, results: ResultsStore) -> list[ExposureSummary]:
    """Return the newest summaries of the exposures of a summary's group, itself included, in order."""
    group_id = summary.info.get("group_id")
    night = results.summaries(summary.camera, day_obs=summary.day_obs, run=summary.run, limit=10_000)
    same = {
        other.exposure: other
        for other in night
        if other.image_type == summary.image_type
        and other.info.get("group_id") == group_id
        and other.pipeline == summary.pipeline
    }
    same[summary.exposure] = summary
    return [same[exposure] for exposure in sorted(same)]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def focus_position_mm(summary: ExposureSummary) -> float | None:
    """Return FOCUSZ of an exposure, positive beyond focus; None if its header does not tell."""
    return _number(summary.info.get("focus_z_mm"))


def add_focus_sweep(summary: ExposureSummary, results: ResultsStore, products: ProductsStore) -> None:
    """Fit best focus when a summary belongs to a focus sweep with enough points, and keep the points.

    Adds ``best_focus_mm``, ``best_focus_error_mm``, ``best_fwhm_arcsec``, ``n_sweep_points`` and whether best focus
    is outside the sweep.
    """
    if summary.image_type != ImageType.FOCUS.value or summary.info.get("group_id") is None:
        return
    points = SweepPoints(exposures=[], z_mm=[], fwhm_arcsec=[])
    for member in group_of(summary, results):
        z = _number(member.info.get("focus_z_mm"))
        fwhm = _number(member.metrics.get("psf_fwhm_arcsec_median"))
        if z is not None and fwhm is not None:
            points.exposures.append(member.exposure)
            points.z_mm.append(z)
            points.fwhm_arcsec.append(fwhm)
    summary.metrics["n_sweep_points"] = len(points.exposures)
    if len(points.exposures) < MIN_POINTS:
        return
    try:
        fit = points.fit()
    except (PayloadError, ValueError) as error:
        log.info("no best focus", exposure_id=summary.exposure, reason=str(error))
        summary.metrics["focus_note"] = str(error)
        return
    summary.metrics["best_focus_mm"] = fit.best_focus_mm
    summary.metrics["best_focus_error_mm"] = fit.best_focus_error_mm
    summary.metrics["best_fwhm_arcsec"] = fit.best_fwhm_arcsec
    summary.metrics["best_focus_outside_sweep"] = bool(fit.is_outside_sweep)
    key = summary_key(summary, kind=POINTS, extension="json")
    products.put(key, points.model_dump_json().encode(), content_type="application/json")
    summary.products[POINTS] = key


def add_donut_pair(summary: ExposureSummary, results: ResultsStore, _products: ProductsStore) -> None:
    """Compare the donuts of an intra- and an extra-focal image of one group.

    Adds ``focus_offset_um`` (positive towards extra-focal), from the median diameters of the two.
    """
    if summary.image_type != ImageType.CWFS.value or summary.info.get("group_id") is None:
        return
    sides: dict[bool, float] = {}
    for member in group_of(summary, results):
        z = _number(member.info.get("focus_z_mm"))
        diameter = _number(member.metrics.get("donut_diameter_px_median"))
        if z and diameter is not None:
            sides[(z > 0) != (summary.camera in FOCUSZ_REVERSED)] = diameter
    if len(sides) < 2:
        return
    camera = load_camera(summary.camera)
    summary.metrics["focus_offset_um"] = focus_offset_um(
        sides[False], sides[True], f_ratio=camera.f_ratio, pixel_mm=camera.detectors[0].pixel_mm
    )
