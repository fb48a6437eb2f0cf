"""What several exposures tell together: pure functions of their summaries.

The fits are those of `payloads.focus`; here is only which numbers of a summary go into them, and how the answer is said.
"""

from collections.abc import Iterable, Sequence

from payloads.focus.donut import focus_offset_um
from payloads.focus.sweep import fit_focus_sweep
from rapid.camera.models import Camera
from rapid.errors import PayloadError
from rapid.exposure.pairs import FOCUSZ_REVERSED, FocusSide, focus_side
from rapid.results.models import ExposureSummary, Scalar


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def fit_sweep(summaries: Sequence[ExposureSummary]) -> dict[str, Scalar]:
    """Return best focus of a sweep with its error.

    Returns
    -------
    focus
        ``best_focus_mm``, ``best_focus_error_mm``, ``best_fwhm_arcsec``, ``best_fwhm_error_arcsec``, ``n_points`` (used in
        the fit), ``n_exposures``, ``fractional_scatter`` of the points about the curve, ``is_outside_sweep``.

    Raises
    ------
    PayloadError
        Raised if the exposures do not tell where the focus was, there are too few, or there is no minimum.
    """
    points = []
    for summary in summaries:
        z = _number(summary.info.get("focus_z_mm"))
        fwhm = _number(summary.metrics.get("psf_fwhm_arcsec_median"))
        if z is not None and fwhm is not None:
            points.append((z, fwhm))
    if not points:
        raise PayloadError("no exposure of the sweep has both a focus position (FOCUSZ) and an image size")
    try:
        fit = fit_focus_sweep([z for z, _ in points], [fwhm for _, fwhm in points])
    except ValueError as error:
        raise PayloadError(str(error)) from error
    return {
        "best_focus_mm": fit.best_focus_mm,
        "best_focus_error_mm": fit.best_focus_error_mm,
        "best_fwhm_arcsec": fit.best_fwhm_arcsec,
        "best_fwhm_error_arcsec": fit.best_fwhm_error_arcsec,
        "n_points": int(fit.used.sum()),
        "n_exposures": len(summaries),
        "fractional_scatter": fit.fractional_scatter,
        "is_outside_sweep": bool(fit.is_outside_sweep),
    }


def compare_pair(summaries: Iterable[ExposureSummary], camera: Camera) -> dict[str, Scalar]:
    """Return how far focus is from the middle of an intra/extra pair.

    Returns
    -------
    pair
        ``focus_offset_um`` (positive towards extra-focal), and exposure and donut diameter [px] of both sides.

    Raises
    ------
    PayloadError
        Raised if the two are not one intra- and one extra-focal exposure with donuts.
    """
    sides: dict[FocusSide, tuple[int, float]] = {}
    for summary in summaries:
        side = focus_side({**summary.info, "image_type": summary.image_type})
        by_reason = "intra" in (reason := str(summary.info.get("reason") or "").lower()) or "extra" in reason
        if side is not None and camera.name in FOCUSZ_REVERSED and not by_reason:
            side = FocusSide.EXTRA if side is FocusSide.INTRA else FocusSide.INTRA
        diameter = _number(summary.metrics.get("donut_diameter_px_median"))
        if side is None:
            raise PayloadError(
                f"exposure {summary.exposure} is neither intra- nor extra-focal", exposure=summary.exposure
            )
        if diameter is None:
            raise PayloadError(f"no donuts were measured in exposure {summary.exposure}", exposure=summary.exposure)
        sides[side] = (summary.exposure, diameter)
    if len(sides) != 2:
        raise PayloadError("both exposures are on the same side of focus")
    intra, extra = sides[FocusSide.INTRA], sides[FocusSide.EXTRA]
    offset = focus_offset_um(intra[1], extra[1], f_ratio=camera.f_ratio, pixel_mm=camera.detectors[0].pixel_mm)
    return {
        "focus_offset_um": offset,
        "intra_exposure": intra[0],
        "extra_exposure": extra[0],
        "intra_diameter_px": intra[1],
        "extra_diameter_px": extra[1],
    }
