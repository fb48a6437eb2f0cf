"""The way of an exposure through the system, as bars."""

from datetime import UTC, datetime, timedelta

import pytest

from rapid.display.timeline import BarKind, make_timeline, utc_of_tai
from rapid.publish.status import SentRow
from rapid.results.models import Provenance
from tests.support.records import make_result, make_summary

CLOSED = datetime(2026, 11, 21, 3, 0, 30, tzinfo=UTC)
INFO = {"begin": "2026-11-21T03:00:37", "end": "2026-11-21T03:01:07"}  # TAI


def result(seconds: float, **timings):
    provenance = Provenance(
        software_version="1",
        pipeline="quicklook",
        pipeline_version="1",
        config_hash="0",
        payloads={"isr": "1", "quality": "1"},
        raw="r",
        raw_sha256="0",
    )
    return make_result(1, 94, finished_at=CLOSED + timedelta(seconds=seconds), timings=timings, provenance=provenance)


def spans(lane, zero=CLOSED):
    return [
        (bar.kind, bar.name, round((bar.begin - zero).total_seconds(), 3), round((bar.end - zero).total_seconds(), 3))
        for bar in lane.bars
    ]


def test_bars_follow_an_exposure_from_the_shutter_to_the_summary():
    posted = CLOSED + timedelta(seconds=2)
    job = result(6.0, read_header_s=0.1, isr_s=1.0, quality_s=0.5, checksum_s=0.2, total_s=2.0, cpu_s=1.9)
    summary = make_summary(1, timings={"total_s": 0.5}, gathered_at=CLOSED + timedelta(seconds=7))
    found = make_timeline(1, [job], [summary], info=INFO, posted=posted)
    assert (found.zero, found.zero_is) == (CLOSED, "shutter closed")
    exposure, detector, gather = found.lanes
    assert spans(exposure) == [
        (BarKind.EXPOSING, "shutter open", -30.0, 0.0),
        (BarKind.ARRIVAL, "readout, transfer, dispatch", 0.0, 2.0),
    ]
    assert spans(detector) == [
        (BarKind.QUEUE, "in the queue", 2.0, 4.0),
        (BarKind.OTHER, "read header", 4.0, 4.1),
        (BarKind.PAYLOAD, "isr", 4.1, 5.1),
        (BarKind.PAYLOAD, "quality", 5.1, 5.6),
        (BarKind.OTHER, "checksum", 5.6, 5.8),
        (BarKind.OTHER, "other", 5.8, 6.0),
    ]
    assert spans(gather) == [(BarKind.GATHER, "complete, 1 of 1", 6.5, 7.0)]


def test_a_replayed_night_counts_from_the_post():
    posted = CLOSED + timedelta(days=300)
    found = make_timeline(1, [], [], info=INFO, posted=posted)
    assert (found.zero, found.zero_is, found.lanes) == (posted, "posted", [])


def test_when_nobody_remembers_the_post_no_queue_is_told():
    found = make_timeline(1, [result(6.0, isr_s=1.0, total_s=1.0)], [], info={}, posted=None)
    assert [bar.kind for bar in found.lanes[0].bars] == [BarKind.PAYLOAD]
    assert found.zero_is == "first job"


def test_results_without_times_leave_no_lane():
    assert (
        make_timeline(1, [make_result(1, 94, finished_at=None), make_result(1, 95)], [], info={}, posted=None).lanes
        == []
    )


@pytest.mark.parametrize("value", [None, 5, "yesterday", ""])
def test_what_is_no_time_is_none(value):
    assert utc_of_tai(value) is None


def test_what_comes_after_a_summary_follows_it():
    gathered = CLOSED + timedelta(seconds=7)
    timings = {"total_s": 0.5, "plots_after_s": 0.25, "plots_s": 2.0}
    one = make_summary(1, timings=timings, gathered_at=gathered)
    two = make_summary(1, version=2, timings={"total_s": 0.5}, gathered_at=gathered + timedelta(seconds=30))
    ms = int(gathered.timestamp() * 1000)

    def sent(**changes):
        facts = {"destination": "rubintv", "exposure": one.exposure, "pipeline": "quicklook", "version": 1}
        return SentRow(**(facts | {"begin_ms": ms + 100, "end_ms": ms + 600} | changes))

    others = [sent(exposure=one.exposure + 1), sent(pipeline="other"), sent(version=2, begin_ms=9, end_ms=8)]
    found = make_timeline(one.exposure, [], [one, two], info=INFO, posted=CLOSED, sent=[sent(), *others])
    first, second = [lane for lane in found.lanes if lane.name.startswith("gather")]
    assert spans(first) == [
        (BarKind.GATHER, "complete, 1 of 1", 6.5, 7.0),
        (BarKind.PLOTS, "plots", 7.25, 9.25),
        (BarKind.PUBLISH, "to rubintv", 7.1, 7.6),
    ]
    assert [bar.kind for bar in second.bars] == [BarKind.GATHER]


@pytest.mark.parametrize("field", ["", "1 quicklook 1", "x quicklook 1 rubintv", "1 quick look 1 rubintv"])
def test_a_sent_row_that_makes_no_sense_is_none(field):
    assert SentRow.parse(field, "1 2") is None
    assert SentRow.parse("1 quicklook 1 rubintv", "later") is None
    assert SentRow.parse("1 quicklook 1 rubintv", "1 2") == SentRow(
        destination="rubintv", exposure=1, pipeline="quicklook", version=1, begin_ms=1, end_ms=2
    )
