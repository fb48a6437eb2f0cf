"""Add up a night: what was taken, how the hours were used, how good it was, what is missing and why, what people said.

Pure but for `night_report`, which asks the stores. Numbers are the summaries'; nothing is measured again.
"""

import math
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from rapid import __version__
from rapid.camera.models import Camera
from rapid.errors import RapidError
from rapid.exposure.models import ImageType
from rapid.nightlog.models import flags_of
from rapid.nightlog.report_models import (
    CalibVerdict,
    Count,
    Efficiency,
    FailureCount,
    Gap,
    MissingReport,
    NightReport,
    Series,
    SeriesPoint,
    Spread,
)
from rapid.nightlog.store import NightLog
from rapid.nightlog.sun import night_between
from rapid.pipeline.store import default_book
from rapid.results.models import CalibRecord, DetectorState, ExposureSummary, QuarantineRecord, Scalar
from rapid.results.store import ResultsStore

TAI_MINUS_UTC = timedelta(seconds=37)
"""Since 2017: headers' times are TAI."""

MAX_NIGHT = 10_000
LONG_GAP_S = 120.0
N_LONG_GAPS = 5
N_FAILED_NAMES = 12

QUANTITIES = (
    ("psf_fwhm_arcsec_median", "Seeing (FWHM)", "″", 2),
    ("psf_fwhm_zenith_arcsec_median", "Seeing at zenith, 500 nm", "″", 2),
    ("psf_e_median", "Ellipticity", "", 3),
    ("transparency_median", "Transparency", "", 2),
    ("zero_point_mag_median", "Zero point", "mag", 2),
    ("sky_brightness_mag_arcsec2_median", "Sky brightness", "mag/″²", 2),
    ("sky_level_e_median", "Sky level", "e⁻", 0),
)
"""What is told of the sky exposures: key in the summary, name, unit, decimals."""

FOCUS = ("focus", "Best focus against command", "µm", 1)
PLOTTED = ("psf_fwhm_arcsec_median", "transparency_median", "psf_e_median", "sky_level_e_median")


def night_report(
    camera: Camera, results: ResultsStore, day_obs: int, *, run: str = "prompt", now: datetime | None = None
) -> NightReport:
    """Return the report of a night, as things stand now; one without exposures is empty.

    Raises
    ------
    StoreError
        Raised if the results store does not answer.
    """
    summaries = results.summaries(camera.name, day_obs=day_obs, run=run, limit=MAX_NIGHT)
    failures = [row for row in results.failures(camera.name, limit=MAX_NIGHT) if _night_of(row["exposure"]) == day_obs]
    raws = [raw for raw in results.quarantined(camera.name, limit=MAX_NIGHT) if _is_of_night(raw, day_obs)]
    comments = NightLog(results.engine).entries(camera.name, day_obs=day_obs)
    calibs = [calib for calib in results.calibs(camera.name, state=None) if _built_in(calib, day_obs)]
    main = main_summaries(summaries)
    names = {detector.id: detector.name for detector in camera.detectors}
    sky = [summary for summary in main if is_sky(summary)]
    finished = [summary.n_finished for summary in main]
    n_complete = sum(1 for summary in main if summary.is_complete)
    n_failed = sum(1 for n, summary in zip(finished, main, strict=True) if n == 0 and summary.n_expected > 0)
    return NightReport(
        camera=camera.name,
        day_obs=day_obs,
        made_at=now or datetime.now(UTC),
        run=run,
        software_version=__version__,
        n_exposures=len(main),
        n_complete=n_complete,
        n_partial=len(main) - n_complete - n_failed,
        n_failed=n_failed,
        efficiency=efficiency_of(camera, day_obs, sky),
        counts=counts_of(main),
        quality=[spread for facts in QUANTITIES for spread in spreads_of(sky, *facts)],
        series=[
            s
            for s in (*(_series(sky, *facts) for facts in QUANTITIES if facts[0] in PLOTTED), _focus(summaries))
            if s.points
        ],
        missing=[line for summary in main for line in missing_of(summary, names)],
        failures=_failures(failures),
        quarantined=[f"{raw.uri.rsplit('/', 1)[-1]}: {raw.reason}" for raw in raws],
        calibrations=[*_verified(summaries), *_masters(calibs)],
        comments=comments,
        flags=flags_of(comments),
    )


def main_summaries(summaries: Iterable[ExposureSummary]) -> list[ExposureSummary]:
    """Return the summary that stands for each exposure, in order: not a build's, not one that runs beside."""
    try:
        beside = default_book().beside
    except RapidError:
        beside = frozenset()
    found: dict[int, ExposureSummary] = {}
    for summary in summaries:
        if summary.pipeline.startswith("build_"):
            continue
        known = found.get(summary.exposure)
        rank = (summary.pipeline not in beside, summary.n_expected, summary.pipeline)
        if known is None or rank > (known.pipeline not in beside, known.n_expected, known.pipeline):
            found[summary.exposure] = summary
    return [found[exposure] for exposure in sorted(found)]


def is_sky(summary: ExposureSummary) -> bool:
    """Whether an exposure is of the sky."""
    try:
        return not ImageType(summary.image_type).is_calibration
    except ValueError:
        return False


def begin_utc(summary: ExposureSummary) -> datetime | None:
    """Return when an exposure began; None if its header did not tell."""
    return _utc(summary.info.get("begin"))


def efficiency_of(camera: Camera, day_obs: int, sky: list[ExposureSummary]) -> Efficiency:
    """Return how the dark hours were used.

    Parameters
    ----------
    sky
        The exposures of the sky, in order.
    """
    spans = []
    for summary in sky:
        begin = begin_utc(summary)
        if begin is not None:
            seconds = _number(summary.info.get("exposure_time_s")) or 0.0
            spans.append((begin, begin + timedelta(seconds=seconds), seconds, summary.seq_num))
    spans.sort()
    has_site = bool(camera.latitude_deg or camera.longitude_deg)
    night = (
        night_between(day_obs, latitude_deg=camera.latitude_deg, longitude_deg=camera.longitude_deg)
        if has_site
        else None
    )
    gaps = [((after[0] - before[1]).total_seconds(), before[3], before[1]) for before, after in pairwise(spans)]
    long_gaps = sorted((gap for gap in gaps if gap[0] > LONG_GAP_S), reverse=True)[:N_LONG_GAPS]
    open_s = sum(seconds for _, _, seconds, _ in spans)
    between_s = (max(end for _, end, _, _ in spans) - spans[0][0]).total_seconds() if spans else 0.0
    in_night_s = 0.0
    if night is not None:
        in_night_s = sum(
            max((min(end, night[1]) - max(begin, night[0])).total_seconds(), 0.0) for begin, end, _, _ in spans
        )
    night_s = (night[1] - night[0]).total_seconds() if night is not None else 0.0
    return Efficiency(
        night_begin=night[0] if night else None,
        night_end=night[1] if night else None,
        night_hours=night_s / 3600.0 if night else None,
        first=spans[0][0] if spans else None,
        last=max(end for _, end, _, _ in spans) if spans else None,
        n_sky=len(sky),
        open_hours=open_s / 3600.0,
        open_fraction=in_night_s / night_s if night_s else None,
        open_fraction_between=min(open_s / between_s, 1.0) if between_s else None,
        typical_gap_s=statistics.median(gap for gap, _, _ in gaps) if gaps else None,
        long_gaps=[Gap(after_seq_num=seq, begin=begin, minutes=gap / 60.0) for gap, seq, begin in long_gaps],
    )


def counts_of(main: list[ExposureSummary]) -> list[Count]:
    """Return how many exposures of each kind and filter were taken, most first."""
    found: dict[tuple[str, str | None], list[float]] = {}
    for summary in main:
        seconds = _number(summary.info.get("exposure_time_s")) or 0.0
        found.setdefault((summary.image_type, _filter(summary)), []).append(seconds)
    return [
        Count(image_type=image_type, physical_filter=physical_filter, n=len(times), exposure_time_s=sum(times))
        for (image_type, physical_filter), times in sorted(
            found.items(), key=lambda item: (-len(item[1]), str(item[0]))
        )
    ]


def spreads_of(sky: list[ExposureSummary], quantity: str, title: str, unit: str, decimals: int) -> list[Spread]:
    """Return a quantity by filter and over all; nothing if it was not measured."""
    by_filter: dict[str | None, list[float]] = {}
    for summary in sky:
        # Exposures out of focus on purpose say nothing of the seeing.
        if summary.image_type in {ImageType.FOCUS.value, ImageType.CWFS.value}:
            continue
        value = _number(summary.metrics.get(quantity))
        if value is not None:
            by_filter.setdefault(_filter(summary), []).append(value)
    filters = sorted(by_filter.items(), key=lambda item: str(item[0]))
    every = [value for _, values in filters for value in values]
    groups = [*filters, (None, every)] if len(filters) > 1 else filters
    # The larger the better for these; for the others the smaller.
    better = max if quantity.startswith(("transparency", "zero_point", "sky_brightness")) else min
    worse = min if better is max else max
    return [
        Spread(
            quantity=quantity,
            title=title,
            unit=unit,
            decimals=decimals,
            physical_filter=physical_filter,
            n=len(values),
            median=statistics.median(values),
            p10=_percentile(values, 10.0),
            p90=_percentile(values, 90.0),
            best=better(values),
            worst=worse(values),
        )
        for physical_filter, values in groups
        if values
    ]


def missing_of(summary: ExposureSummary, names: dict[int, str]) -> list[MissingReport]:
    """Return the detectors of an exposure that have no result and are not off on purpose, by state and reason."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for detector, status in sorted(summary.detectors.items()):
        if status.state not in {DetectorState.FINISHED, DetectorState.EXCLUDED, DetectorState.SUPERSEDED}:
            reason = status.reason or ("its raw has not come" if status.state is DetectorState.WAITING else "")
            grouped.setdefault((status.state.value, reason), []).append(names.get(detector, str(detector)))
    return [
        MissingReport(
            exposure_id=summary.exposure,
            seq_num=summary.seq_num,
            pipeline=summary.pipeline,
            n_finished=summary.n_finished,
            n_expected=summary.n_expected,
            state=state,
            reason=reason,
            detectors=detectors,
        )
        for (state, reason), detectors in grouped.items()
    ]


def _series(sky: list[ExposureSummary], quantity: str, title: str, unit: str, decimals: int) -> Series:
    points = []
    for summary in sky:
        value, at = _number(summary.metrics.get(quantity)), begin_utc(summary)
        if value is not None and at is not None and summary.image_type != ImageType.CWFS.value:
            points.append(_point(summary, at, value))
    return Series(quantity=quantity, title=title, unit=unit, decimals=decimals, points=points)


def _focus(summaries: list[ExposureSummary]) -> Series:
    points = []
    for summary in sorted(summaries, key=lambda summary: summary.exposure):
        at, metrics = begin_utc(summary), summary.metrics
        if at is None:
            continue
        best, offset = _number(metrics.get("best_focus_mm")), _number(metrics.get("wavefront_focus_offset_um"))
        if best is not None:
            error = _number(metrics.get("best_focus_error_mm"))
            points.append(_point(summary, at, 1000.0 * best, None if error is None else 1000.0 * error))
        elif offset is not None:
            points.append(_point(summary, at, offset, _number(metrics.get("wavefront_focus_offset_error_um"))))
    quantity, title, unit, decimals = FOCUS
    return Series(quantity=quantity, title=title, unit=unit, decimals=decimals, points=points)


def _point(summary: ExposureSummary, at: datetime, value: float, error: float | None = None) -> SeriesPoint:
    return SeriesPoint(
        exposure_id=summary.exposure,
        seq_num=summary.seq_num,
        at=at,
        physical_filter=_filter(summary),
        value=value,
        error=error,
    )


def _failures(rows: list[dict[str, Any]]) -> list[FailureCount]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        grouped.setdefault((row["code"], row["message"]), []).append(row["job_id"])
    return [
        FailureCount(code=code, message=message, n=len(jobs), first_job=min(jobs))
        for (code, message), jobs in sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _verified(summaries: list[ExposureSummary]) -> list[CalibVerdict]:
    """Return calibration exposures by kind, filter and outcome; each one that failed has a line of its own."""
    lines: list[CalibVerdict] = []
    together: dict[tuple[str, str | None, str | None], int] = {}
    for summary in sorted(summaries, key=lambda summary: summary.exposure):
        if is_sky(summary) or summary.pipeline.startswith("build_"):
            continue
        outcome = summary.metrics.get("verify_outcome")
        word = str(outcome) if outcome else None
        if word == "fail":
            failures = [part.strip() for part in str(summary.metrics.get("verify_failures") or "").split(",")]
            lines.append(
                CalibVerdict(
                    subject="exposure",
                    name=f"{summary.seq_num:06d}",
                    kind=summary.image_type,
                    physical_filter=_filter(summary),
                    outcome=word,
                    failures=[failure for failure in failures if failure][:N_FAILED_NAMES],
                )
            )
        else:
            key = (summary.image_type, _filter(summary), word)
            together[key] = together.get(key, 0) + 1
    for (kind, physical_filter, word), n in together.items():
        name = f"{n} exposure{'' if n == 1 else 's'}"
        lines.append(
            CalibVerdict(subject="exposure", name=name, kind=kind, physical_filter=physical_filter, outcome=word, n=n)
        )
    return lines


def _masters(calibs: list[CalibRecord]) -> list[CalibVerdict]:
    """Return masters by kind, filter, state and outcome: a line for all detectors that fared alike."""
    grouped: dict[tuple[str, str | None, str, str | None], list[CalibRecord]] = {}
    for calib in calibs:
        key = (calib.kind, calib.physical_filter or None, calib.state.value, calib.outcome)
        grouped.setdefault(key, []).append(calib)
    return [
        CalibVerdict(
            subject="master",
            name=f"{len(of)} detector{'' if len(of) == 1 else 's'}",
            kind=kind,
            physical_filter=physical_filter,
            outcome=outcome,
            state=state,
            n=len(of),
            failures=[f"{c.detector}: {failure}" for c in of for failure in c.failures][:N_FAILED_NAMES],
        )
        for (kind, physical_filter, state, outcome), of in sorted(grouped.items(), key=lambda item: str(item[0]))
    ]


def _built_in(calib: CalibRecord, day_obs: int) -> bool:
    if calib.inputs:
        return _night_of(calib.inputs[-1]) == day_obs
    created = calib.created_at if calib.created_at.tzinfo else calib.created_at.replace(tzinfo=UTC)
    return int((created - timedelta(hours=12)).strftime("%Y%m%d")) == day_obs


def _is_of_night(raw: QuarantineRecord, day_obs: int) -> bool:
    if raw.exposure is not None:
        return _night_of(raw.exposure) == day_obs
    return int((raw.quarantined_at.astimezone(UTC) - timedelta(hours=12)).strftime("%Y%m%d")) == day_obs


def _night_of(exposure_id: int) -> int:
    # Other controllers' days have a thousand years or more added.
    day_obs = exposure_id // 100_000
    return day_obs if day_obs < 30_000_000 else day_obs % 10_000_000 + 20_000_000


def _filter(summary: ExposureSummary) -> str | None:
    value = summary.info.get("physical_filter")
    return str(value) if value else None


def _number(value: Scalar | object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _utc(text: object) -> datetime | None:
    if isinstance(text, str):
        try:
            text = datetime.fromisoformat(text)
        except ValueError:
            return None
    if not isinstance(text, datetime):
        return None
    if text.tzinfo is not None:
        return text.astimezone(UTC)
    return text.replace(tzinfo=UTC) - TAI_MINUS_UTC


def _percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    place = percent / 100.0 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
