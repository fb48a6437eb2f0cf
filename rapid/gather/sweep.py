"""Add the focus sweep to a summary: best focus from all exposures of the group so far."""

import structlog
from payloads.focus.sweep import fit_focus_sweep

from rapid.errors import PayloadError
from rapid.exposure.models import ImageType
from rapid.products.store import ProductsStore
from rapid.results.models import ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()

MIN_POINTS = 4
"""A quadrature curve has three parameters; fewer points than four say nothing about their own error."""


def sweep_points(summary: ExposureSummary, results: ResultsStore) -> list[ExposureSummary]:
    """Return the exposures of the summary's sweep, itself included, in order."""
    group_id = summary.info.get("group_id")
    night = results.summaries(summary.camera, day_obs=summary.day_obs, run=summary.run)
    same = {
        other.exposure: other
        for other in night
        if other.image_type == ImageType.FOCUS.value
        and other.info.get("group_id") == group_id
        and other.pipeline == summary.pipeline
    }
    same[summary.exposure] = summary
    return [same[exposure] for exposure in sorted(same)]


def add_focus_sweep(summary: ExposureSummary, results: ResultsStore, _products: ProductsStore) -> None:
    """Fit best focus when the summary belongs to a focus sweep with enough points.

    Adds ``best_focus_mm``, ``best_focus_error_mm``, ``best_fwhm_arcsec`` and ``n_sweep_points``.
    """
    if summary.image_type != ImageType.FOCUS.value or summary.info.get("group_id") is None:
        return
    points = [
        (float(p.info["focus_z_mm"]), float(fwhm), float(p.metrics.get("psf_fwhm_arcsec_scatter") or 0.0))
        for p in sweep_points(summary, results)
        if p.info.get("focus_z_mm") is not None
        and isinstance(fwhm := p.metrics.get("psf_fwhm_arcsec_median"), int | float)
    ]
    summary.metrics["n_sweep_points"] = len(points)
    if len(points) < MIN_POINTS:
        return
    try:
        fit = fit_focus_sweep([z for z, _, _ in points], [f for _, f, _ in points])
    except (PayloadError, ValueError) as error:
        log.info("no best focus", exposure_id=summary.exposure, reason=str(error))
        return
    summary.metrics["best_focus_mm"] = fit.best_focus_mm
    summary.metrics["best_focus_error_mm"] = fit.best_focus_error_mm
    summary.metrics["best_fwhm_arcsec"] = fit.best_fwhm_arcsec
