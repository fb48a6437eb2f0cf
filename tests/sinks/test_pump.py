"""From a summary to a sink: outages, refusals, restarts, full disks."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from rapid.sinks.models import MetricDocument, Sent
from rapid.sinks.pump import MetricPump
from rapid.sinks.spool import Spool
from tests.sinks.test_influx import make_document
from tests.support.records import make_result, make_summary

WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _logs():
    with structlog.testing.capture_logs():
        yield


class Told:
    """A sink that does as it is told, and remembers what it took."""

    name = "told"

    def __init__(self) -> None:
        self.taken: list[MetricDocument] = []
        self.n_calls = 0
        self.is_up = True
        self.refuses = ""
        self.called = threading.Event()

    def send(self, documents: Sequence[MetricDocument]) -> Sent:
        self.n_calls += 1
        self.called.set()
        if not self.is_up:
            return Sent(retry=tuple(range(len(documents))), why="away")
        rejected = {n: "refused" for n, one in enumerate(documents) if self.refuses and one.level == self.refuses}
        self.taken += [one for n, one in enumerate(documents) if n not in rejected]
        return Sent(rejected=rejected)


def make_pump(sink, folder, **settings) -> MetricPump:
    settings = {"first_pause_s": 0.01, "longest_pause_s": 0.05, **settings}
    return MetricPump(sink, lambda summary: [make_result(summary.seq_num)], folder, **settings)


async def run_while(pump: MetricPump, *waits) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(pump.run(stop))
    try:
        for wait in waits:
            await wait()
    finally:
        stop.set()
        await asyncio.wait_for(running, WAIT_S)


async def test_the_metrics_of_a_summary_reach_the_sink(tmp_path):
    sink = Told()
    pump = make_pump(sink, tmp_path)
    pump.put(make_summary())

    async def wait():
        assert await pump.drain(WAIT_S)

    await run_while(pump, wait)
    assert {one.level for one in sink.taken} >= {"exposure", "detector"}
    assert pump.status.is_up
    assert (pump.status.n_waiting, pump.status.n_dead) == (0, 0)


async def test_what_an_outage_held_up_is_sent_when_it_ends(tmp_path):
    sink = Told()
    sink.is_up = False
    pump = make_pump(sink, tmp_path)
    for seq_num in (1, 2, 3):
        pump.put(make_summary(seq_num))

    async def wait():
        assert await asyncio.to_thread(sink.called.wait, WAIT_S)
        assert sink.taken == []
        sink.is_up = True
        assert await pump.drain(WAIT_S)

    await run_while(pump, wait)
    assert [one.seq_num for one in sink.taken if one.level == "exposure"] == [1, 2, 3]
    assert pump.status.error == ""


async def test_what_waits_outlives_a_restart(tmp_path):
    sink = Told()
    sink.is_up = False
    pump = make_pump(sink, tmp_path)
    pump.put(make_summary(7))

    async def wait_for_a_try():
        assert await asyncio.to_thread(sink.called.wait, WAIT_S)

    await run_while(pump, wait_for_a_try)
    assert (sink.taken, pump.status.n_waiting) == ([], 1)
    sink.is_up = True
    again = make_pump(sink, tmp_path)
    assert again.status.n_waiting == 1

    async def drain():
        again.put(make_summary(8))
        assert await again.drain(WAIT_S)

    await run_while(again, drain)
    assert [one.seq_num for one in sink.taken if one.level == "exposure"] == [7, 8]


async def test_what_is_refused_is_a_dead_letter_and_holds_up_nothing(tmp_path):
    sink = Told()
    sink.refuses = "detector"
    pump = make_pump(sink, tmp_path)
    pump.put(make_summary(1))
    pump.put(make_summary(2))

    async def wait():
        assert await pump.drain(WAIT_S)

    await run_while(pump, wait)
    assert {one.level for one in sink.taken} == {"exposure", "amp"}
    assert pump.status.n_dead == 2
    letter = pump.spool.dead()[0]
    assert (letter.why, letter.n_documents) == ("refused", 1)
    sink.refuses = ""
    assert pump.spool.retry_dead() == 2

    await run_while(pump, wait)
    assert sum(one.level == "detector" for one in sink.taken) == 2
    assert pump.status.n_dead == 0


async def test_what_could_not_be_sent_for_too_long_is_given_up(tmp_path):
    sink = Told()
    sink.is_up = False
    pump = make_pump(sink, tmp_path, give_up_s=0.001)
    pump.spool.put("old", [make_document()], now=datetime.now(UTC) - timedelta(hours=1))

    async def wait():
        assert await pump.drain(WAIT_S)

    await run_while(pump, wait)
    assert pump.status.n_dead == 1
    assert "given up" in pump.spool.dead()[0].why


async def test_a_sink_that_breaks_is_tried_again(tmp_path):
    sink = Told()
    plain, n_broken = sink.send, iter([True, True])

    def send(documents):
        if next(n_broken, False):
            raise ZeroDivisionError("a fault of the sink")
        return plain(documents)

    sink.send = send
    pump = make_pump(sink, tmp_path)
    pump.put(make_summary())

    async def wait():
        assert await pump.drain(WAIT_S)

    await run_while(pump, wait)
    assert sink.taken


def test_a_full_spool_pushes_out_the_oldest_as_dead_letters(tmp_path):
    size = len(make_document().model_dump_json()) + 200
    spool = Spool(tmp_path, max_bytes=3 * size, max_dead=2)
    for n in range(6):
        spool.put(f"parcel {n}", [make_document(seq_num=n)])
    name, parcel = spool.first()
    assert parcel.name > "parcel 0"
    assert spool.n_waiting <= 4
    assert spool.n_dead <= 2
    assert "pushed out" in spool.dead()[0].why
    spool.keep(name, parcel.model_copy(update={"documents": []}))
    assert spool.first()[1].name > parcel.name


def test_a_parcel_that_was_damaged_is_buried(tmp_path):
    spool = Spool(tmp_path)
    spool.put("a", [make_document()])
    spool.put("b", [make_document()])
    name, _ = spool.first()
    (tmp_path / "waiting" / name).write_text("{")
    assert spool.first()[1].name == "b"
    assert spool.n_dead == 1
    assert Spool(tmp_path).n_waiting == 1
