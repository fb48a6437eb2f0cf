"""The way of an exposure through the system, as bars in time: arrival, queue, each payload, gather, plots, publishing.

Pure: made of what results and summaries say of themselves.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rapid.publish.status import SentRow
from rapid.results.models import DetectorResult, ExposureSummary

TAI_MINUS_UTC = timedelta(seconds=37)
"""Since 2017; headers tell TAI."""
NOT_STEPS = frozenset({"total_s", "cpu_s", "worker_s"})


class BarKind(StrEnum):
    """What a bar stands for."""

    EXPOSING = "exposing"
    ARRIVAL = "arrival"
    """From the shutter's closing to the raw on the board."""

    QUEUE = "queue"
    PAYLOAD = "payload"
    OTHER = "other"
    """Of a job, what no payload took: reading, writing products."""

    GATHER = "gather"
    PLOTS = "plots"
    """Drawn after the summary is out."""

    PUBLISH = "publish"
    """From when publish heard of the summary to when its row was there."""


class Bar(BaseModel):
    """One stretch of time in a lane."""

    model_config = ConfigDict(extra="forbid")

    kind: BarKind
    name: str
    begin: datetime = Field(description="UTC.")
    end: datetime


class Lane(BaseModel):
    """One line: the exposure itself, a detector, a summary."""

    model_config = ConfigDict(extra="forbid")

    name: str
    detector: int | None = None
    pipeline: str | None = None
    host: str | None = None
    bars: list[Bar]


class Timeline(BaseModel):
    """All lanes of an exposure, in the order in which they began."""

    model_config = ConfigDict(extra="forbid")

    exposure_id: int
    zero: datetime | None = Field(
        default=None, description="The shutter's closing, else the post: where time counts from."
    )
    zero_is: str = ""
    posted: datetime | None = Field(default=None, description="When the board heard of it, UTC.")
    lanes: list[Lane]


def utc_of_tai(value: Any) -> datetime | None:
    """Return a header's time (TAI, without zone) as UTC; None for none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) - TAI_MINUS_UTC


def make_timeline(
    exposure_id: int,
    results: Iterable[DetectorResult],
    summaries: Iterable[ExposureSummary],
    *,
    info: Mapping[str, Any],
    posted: datetime | None,
    sent: Iterable[SentRow] = (),
) -> Timeline:
    """Return the way of an exposure through the system.

    Parameters
    ----------
    posted
        When the board heard of the exposure; None if nobody remembers: then no job's time in the queue is told.
    sent
        When rows were sent to others, those of other exposures too.
    """
    rows = [row for row in sent if row.exposure == exposure_id]
    begin, end = utc_of_tai(info.get("begin")), utc_of_tai(info.get("end"))
    lanes = []
    if begin is not None and end is not None and end >= begin:
        bars = [Bar(kind=BarKind.EXPOSING, name="shutter open", begin=begin, end=end)]
        if posted is not None and timedelta() < posted - end < timedelta(hours=1):
            # Of a replayed night the shutter closed long ago; a bar of years would hide all others.
            bars.append(Bar(kind=BarKind.ARRIVAL, name="readout, transfer, dispatch", begin=end, end=posted))
        lanes.append(Lane(name="exposure", bars=bars))
    jobs = [lane for result in results if (lane := _job(result, posted)) is not None]
    lanes += sorted(jobs, key=lambda lane: (lane.bars[0].begin, lane.bars[-1].end, lane.name))
    lanes += [lane for one in sorted(summaries, key=lambda s: (s.pipeline, s.version)) if (lane := _gather(one, rows))]
    close = end is not None and posted is not None and timedelta() <= posted - end < timedelta(hours=1)
    first = min((bar.begin for lane in lanes if lane.name != "exposure" for bar in lane.bars), default=None)
    zero, zero_is = (end, "shutter closed") if close else (posted or first, "posted" if posted else "first job")
    if not close:
        lanes = [lane for lane in lanes if lane.name != "exposure"]
    return Timeline(exposure_id=exposure_id, zero=zero, zero_is=zero_is if zero else "", posted=posted, lanes=lanes)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _job(result: DetectorResult, posted: datetime | None) -> Lane | None:
    total_s = result.timings.get("total_s")
    if result.finished_at is None or total_s is None:
        return None
    end = _aware(result.finished_at)
    begin = end - timedelta(seconds=total_s)
    bars = []
    if posted is not None and posted < begin:
        bars.append(Bar(kind=BarKind.QUEUE, name="in the queue", begin=posted, end=begin))
    at = begin
    for name, seconds in result.timings.items():
        if name in NOT_STEPS or seconds <= 0:
            continue
        step = name.removesuffix("_s")
        kind = BarKind.PAYLOAD if step in result.provenance.payloads else BarKind.OTHER
        until = min(at + timedelta(seconds=seconds), end)
        bars.append(Bar(kind=kind, name=step.replace("_", " "), begin=at, end=until))
        at = until
    if end - at > timedelta(milliseconds=1):
        bars.append(Bar(kind=BarKind.OTHER, name="other", begin=at, end=end))
    return Lane(
        name=result.detector_name,
        detector=result.detector,
        pipeline=result.pipeline,
        host=result.provenance.host or None,
        bars=bars,
    )


def _gather(summary: ExposureSummary, sent: Iterable[SentRow]) -> Lane | None:
    total_s = summary.timings.get("total_s")
    if summary.gathered_at is None or total_s is None:
        return None
    end = _aware(summary.gathered_at)
    name = f"{summary.reason.value}, {summary.n_finished} of {summary.n_expected}"
    bars = [Bar(kind=BarKind.GATHER, name=name, begin=end - timedelta(seconds=total_s), end=end)]
    plots_s, after_s = summary.timings.get("plots_s"), summary.timings.get("plots_after_s")
    if plots_s is not None and after_s is not None:
        begin = end + timedelta(seconds=max(after_s, 0.0))
        bars.append(Bar(kind=BarKind.PLOTS, name="plots", begin=begin, end=begin + timedelta(seconds=plots_s)))
    bars += [
        Bar(kind=BarKind.PUBLISH, name=f"to {row.destination}", begin=_moment(row.begin_ms), end=_moment(row.end_ms))
        for row in sent
        if (row.pipeline, row.version) == (summary.pipeline, summary.version) and row.end_ms >= row.begin_ms
    ]
    return Lane(name=f"gather {summary.pipeline} v{summary.version}", pipeline=summary.pipeline, bars=bars)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)
