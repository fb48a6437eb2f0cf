"""Put together what a night's summaries tell of focus and wavefront. Pure: summaries in, models out.

The numbers are the gather's. Fitted here again are only the curve that is drawn and the astigmatism, with the same
functions: milliseconds.
"""

import math
from collections.abc import Iterable
from typing import Any

from payloads.focus.astigmatism import fit_astigmatism
from payloads.focus.sweep import FocusFit, fit_focus_sweep
from rapid.display.focus.models import (
    Astigmatism,
    DonutPair,
    DonutSide,
    FocusNight,
    FocusPoint,
    FocusSweep,
    SiteView,
    SweepPoint,
    WavefrontDetail,
    WavefrontView,
)
from rapid.errors import PayloadError
from rapid.exposure.models import ImageType
from rapid.results.models import ExposureSummary, Scalar

N_CURVE = 49
"""Points of a drawn curve: smooth at any width of the page."""

MAX_NOLL = 66
"""Zernikes are looked for up to here; pipelines fit far fewer."""


def focus_of_night(day_obs: int, summaries: Iterable[ExposureSummary]) -> FocusNight:
    """Return a night's focus and wavefront, newest first."""
    found = sorted(summaries, key=lambda summary: (summary.exposure, summary.pipeline))
    sweeps = [_sweep(group, of) for group, of in _groups(found, ImageType.FOCUS, "psf_fwhm_arcsec_median")]
    pairs = [_pair(group, of) for group, of in _groups(found, ImageType.CWFS, "donut_diameter_px_median")]
    wavefronts = [_wavefront(summary) for summary in found if has_wavefront(summary)]
    return FocusNight(
        day_obs=day_obs,
        sweeps=sweeps[::-1],
        pairs=pairs[::-1],
        wavefronts=wavefronts[::-1],
        history=_history(sweeps, pairs, wavefronts),
    )


def has_wavefront(summary: ExposureSummary) -> bool:
    """Whether a summary holds a joint wavefront, or says why it does not."""
    return "wavefront_n_pairs" in summary.metrics or "wavefront_note" in summary.metrics


def wavefront_detail(summary: ExposureSummary, report: dict[str, Any]) -> WavefrontDetail:
    """Return a summary's wavefront with the places of the field.

    Parameters
    ----------
    report
        The stored `payloads.focus.joint.JointReport`; empty if there is none.
    """
    field = report.get("field") or {}
    sites = [
        SiteView(
            name=str(site["name"]),
            x_deg=site["thx_deg"],
            y_deg=site["thy_deg"],
            zernikes_um=site["zernikes_um"],
            errors_um=site["errors_um"],
            n_pairs=site["n_pairs"],
            chi2_per_dof=site.get("chi2_per_dof"),
            blur_arcsec=site.get("blur_arcsec"),
            aberration_fwhm_arcsec=site.get("aberration_fwhm_arcsec"),
        )
        for site in report.get("sites", [])
    ]
    view = _wavefront(summary).model_dump()
    if report.get("noll"):
        view["noll"] = report["noll"]
        view["zernikes_um"] = _metrics(summary, [f"wavefront_z{j}_um" for j in report["noll"]])
        view["errors_um"] = _metrics(summary, [f"wavefront_z{j}_error_um" for j in report["noll"]])
    return WavefrontDetail(
        **view,
        sites=sites,
        field_terms_um=field.get("coefficients_um", []),
        field_errors_um=field.get("errors_um", []),
    )


def number(value: Scalar) -> float | None:
    """Return a metric as a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _metrics(summary: ExposureSummary, keys: Iterable[str]) -> list[float | None]:
    return [number(summary.metrics.get(key)) for key in keys]


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _groups(
    summaries: list[ExposureSummary], image_type: ImageType, mark: str
) -> list[tuple[str, list[ExposureSummary]]]:
    """Return exposures of a kind by their group; one without a group is a group of its own.

    Of several pipelines on the same exposures the one with the measurement counts, and of those the first by name: the
    quick look, not what runs beside it.
    """
    groups: dict[str, dict[int, ExposureSummary]] = {}
    for summary in summaries:
        if summary.image_type != image_type.value:
            continue
        group = _text(summary.info.get("group_id")) or str(summary.exposure)
        known = groups.setdefault(group, {})
        if summary.exposure not in known or (mark in summary.metrics and mark not in known[summary.exposure].metrics):
            known[summary.exposure] = summary
    return [(group, [of[exposure] for exposure in sorted(of)]) for group, of in groups.items()]


def _sweep(group: str, summaries: list[ExposureSummary]) -> FocusSweep:
    points = [
        SweepPoint(
            exposure_id=summary.exposure,
            seq_num=summary.seq_num,
            begin=summary.info.get("begin"),
            z_mm=number(summary.info.get("focus_z_mm")),
            fwhm_arcsec=number(summary.metrics.get("psf_fwhm_arcsec_median")),
            fwhm_scatter_arcsec=number(summary.metrics.get("psf_fwhm_arcsec_scatter")),
            e1=number(summary.metrics.get("psf_e1_median")),
            e2=number(summary.metrics.get("psf_e2_median")),
            n_finished=summary.n_finished,
            n_expected=summary.n_expected,
        )
        for summary in summaries
    ]
    # The newest exposure's fit is the one with most points; an earlier one's stands while that has none yet.
    fitted = next((s for s in reversed(summaries) if number(s.metrics.get("best_focus_mm")) is not None), None)
    noted = next((note for s in reversed(summaries) if (note := _text(s.metrics.get("focus_note")))), None)
    sweep = FocusSweep(
        group_id=group,
        physical_filter=_text(summaries[0].info.get("physical_filter")),
        object_name=_text(summaries[0].info.get("object_name")),
        points=points,
        plot=next((key for s in reversed(summaries) if (key := s.products.get("focus_sweep"))), None),
    )
    measured = [point for point in points if point.z_mm is not None and point.fwhm_arcsec is not None]
    if fitted is None:
        sweep.note = noted or f"{len(measured)} of at least 4 points measured"
        return sweep
    sweep.best_focus_mm = number(fitted.metrics.get("best_focus_mm"))
    sweep.best_focus_error_mm = number(fitted.metrics.get("best_focus_error_mm"))
    sweep.best_fwhm_arcsec = number(fitted.metrics.get("best_fwhm_arcsec"))
    sweep.is_outside_sweep = bool(fitted.metrics.get("best_focus_outside_sweep"))
    positions = [point.z_mm or 0.0 for point in measured]
    sizes = [point.fwhm_arcsec or 0.0 for point in measured]
    try:
        fit = fit_focus_sweep(positions, sizes)
    except (PayloadError, ValueError) as error:
        sweep.note = str(error)
        return sweep
    for point, used in zip(measured, fit.used, strict=True):
        point.is_used = bool(used)
    sweep.curve = _curve(fit, positions)
    sweep.astigmatism = _astigmatism(measured)
    return sweep


def _curve(fit: FocusFit, positions: list[float]) -> list[tuple[float, float]]:
    low, high = min(*positions, fit.best_focus_mm), max(*positions, fit.best_focus_mm)
    z = [low + (high - low) * at / (N_CURVE - 1) for at in range(N_CURVE)]
    return [(x, float(y)) for x, y in zip(z, fit.fwhm_at(z), strict=True)]


def _astigmatism(points: list[SweepPoint]) -> Astigmatism | None:
    whole = [point for point in points if point.e1 is not None and point.e2 is not None]
    if not whole:
        return None
    try:
        fit = fit_astigmatism(*([getattr(p, name) for p in whole] for name in ("z_mm", "fwhm_arcsec", "e1", "e2")))
    except PayloadError:
        return None
    return Astigmatism(
        slope_arcsec2_per_mm=list(fit.slope_arcsec2_per_mm),
        slope_error_arcsec2_per_mm=list(fit.slope_error_arcsec2_per_mm),
        zero_mm=list(fit.zero_mm),
    )


def _pair(group: str, summaries: list[ExposureSummary]) -> DonutPair:
    sides = [
        DonutSide(
            exposure_id=summary.exposure,
            seq_num=summary.seq_num,
            begin=summary.info.get("begin"),
            z_mm=number(summary.info.get("focus_z_mm")),
            diameter_px=number(summary.metrics.get("donut_diameter_px_median")),
            defocus_residual_um=number(summary.metrics.get("defocus_residual_um_median")),
            defocus_residual_scatter_um=number(summary.metrics.get("defocus_residual_um_scatter")),
            n_donuts=number(summary.metrics.get("n_donuts_median")),
            n_finished=summary.n_finished,
            n_expected=summary.n_expected,
        )
        for summary in summaries
    ]
    measured = {side.z_mm > 0 for side in sides if side.z_mm and side.diameter_px is not None}
    offsets = [value for s in summaries if (value := number(s.metrics.get("focus_offset_um"))) is not None]
    return DonutPair(
        group_id=group,
        physical_filter=_text(summaries[0].info.get("physical_filter")),
        sides=sides,
        focus_offset_um=offsets[-1] if offsets else None,
        is_complete=len(measured) == 2,
    )


def _wavefront(summary: ExposureSummary) -> WavefrontView:
    metrics = summary.metrics
    noll = [j for j in range(2, MAX_NOLL + 1) if f"wavefront_z{j}_um" in metrics]
    counts = {name: number(metrics.get(f"wavefront_{name}")) for name in ("n_pairs", "n_pairs_possible", "n_sites")}
    partner = number(metrics.get("wavefront_partner"))
    return WavefrontView(
        exposure_id=summary.exposure,
        partner_id=None if partner is None else int(partner),
        seq_num=summary.seq_num,
        pipeline=summary.pipeline,
        version=summary.version,
        begin=summary.info.get("begin"),
        physical_filter=_text(summary.info.get("physical_filter")),
        focus_offset_um=number(metrics.get("wavefront_focus_offset_um")),
        focus_offset_error_um=number(metrics.get("wavefront_focus_offset_error_um")),
        aberration_fwhm_arcsec=number(metrics.get("wavefront_field_fwhm_arcsec")),
        **{name: None if value is None else int(value) for name, value in counts.items()},
        noll=noll,
        zernikes_um=_metrics(summary, [f"wavefront_z{j}_um" for j in noll]),
        errors_um=_metrics(summary, [f"wavefront_z{j}_error_um" for j in noll]),
        note=_text(metrics.get("wavefront_note")),
        report=summary.products.get("wavefront"),
        plots={kind: key for kind, key in summary.products.items() if kind.startswith("wavefront_")},
    )


def _history(sweeps: list[FocusSweep], pairs: list[DonutPair], wavefronts: list[WavefrontView]) -> list[FocusPoint]:
    points = []
    for sweep in sweeps:
        if sweep.best_focus_mm is not None:
            error = sweep.best_focus_error_mm
            points.append(
                FocusPoint(
                    exposure_id=sweep.points[-1].exposure_id,
                    seq_num=sweep.points[-1].seq_num,
                    begin=sweep.points[-1].begin,
                    kind="sweep",
                    focus_offset_um=1000.0 * sweep.best_focus_mm,
                    error_um=None if error is None else 1000.0 * error,
                )
            )
    for pair in pairs:
        if pair.focus_offset_um is not None:
            last = pair.sides[-1]
            points.append(
                FocusPoint(
                    exposure_id=last.exposure_id,
                    seq_num=last.seq_num,
                    begin=last.begin,
                    kind="pair",
                    focus_offset_um=pair.focus_offset_um,
                )
            )
    points += [
        FocusPoint(
            exposure_id=wavefront.exposure_id,
            seq_num=wavefront.seq_num,
            begin=wavefront.begin,
            kind="wavefront",
            focus_offset_um=wavefront.focus_offset_um,
            error_um=wavefront.focus_offset_error_um,
        )
        for wavefront in wavefronts
        if wavefront.focus_offset_um is not None
    ]
    return sorted(points, key=lambda point: (point.exposure_id, point.kind))
