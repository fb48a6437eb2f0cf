"""Raws of a directory into a Butler repository: nothing lost, nothing doubled, bad ones set aside."""

import asyncio
import threading

from lsst.daf.butler import Butler

from rapid.errors import StoreError
from rapid.ingest import store
from rapid.ingest.decide import RetryPolicy
from rapid.ingest.wait import wait_for_ingested
from tests.ingest.conftest import CAMERA, NAMES, QUICK, RUN, exposure_id, make_desk, raws_in, write_raw
from tests.support.raws import make_raw, raw_name


async def test_raws_are_read_back_by_a_plain_client_with_all_their_facts(stage) -> None:
    await stage.start()
    for name in NAMES[:3]:
        write_raw(stage.raws, 7, name)
    detectors = await stage.told(7, 3)
    assert detectors == {CAMERA.by_name[name].id for name in NAMES[:3]}
    with Butler.from_config(str(stage.repo)) as butler:
        data_id = {"instrument": "LSSTCam", "exposure": exposure_id(7), "detector": min(detectors)}
        raw = butler.get("raw", data_id, collections=RUN)
        assert [hdu.name for hdu in raw[1:3]] == ["SEGMENT00", "SEGMENT01"]
        assert raw[1].data.shape == (40, 50)
        assert butler.get("raw.header", data_id, collections=RUN)["SEQNUM"] == 7
        (exposure,) = butler.query_dimension_records("exposure", instrument="LSSTCam")
        (day,) = butler.query_dimension_records("day_obs", instrument="LSSTCam")
        known = butler.query_dimension_records("detector", instrument="LSSTCam", limit=None)
    assert (exposure.obs_id, exposure.day_obs, exposure.seq_num) == ("MC_O_20261120_000007", 20261120, 7)
    assert (exposure.physical_filter, exposure.observation_type) == ("r_57", "science")
    assert exposure.exposure_time == 30.0
    assert exposure.timespan.begin.tai.isot[:19] == "2026-11-21T03:00:00"
    assert day.timespan.begin.tai.isot[:19] == "2026-11-20T12:00:00"
    assert len(known) == len(CAMERA.detectors)
    assert {one.purpose for one in known} == {"SCIENCE", "GUIDER", "WAVEFRONT"}


async def test_a_restart_in_the_middle_loses_and_doubles_nothing(stage) -> None:
    first = await stage.start()
    for name in NAMES[:30]:
        write_raw(stage.raws, 1, name)
    await stage.told(1, 1)
    first.task.cancel()  # not asked to stop: whatever it had in hand is gone with it
    await asyncio.gather(first.task, return_exceptions=True)
    stage.processes.remove(first)
    for name in NAMES[30:40]:
        write_raw(stage.raws, 1, name)
    await stage.start()
    assert len(await stage.told(1, 40)) == 40
    assert len(raws_in(stage.repo)) == 40
    said = [number for message in await stage.messages() for number in message.detectors]
    assert set(said) == {CAMERA.by_name[name].id for name in NAMES[:40]}


async def test_what_was_ingested_but_not_told_is_told_by_the_next(stage) -> None:
    desk = make_desk(stage.repo)
    path = write_raw(stage.raws, 2, "R22_S11")
    from rapid.ingest.models import Item

    def ingest_and_die() -> list:
        item = Item(str(path), since_s=0.0)
        assert desk.look(item) is None
        outcomes = desk.ingest([item])
        desk.close()
        return outcomes

    outcomes = await asyncio.to_thread(ingest_and_die)
    assert [one.fate.value for one in outcomes] == ["ingested"]
    assert await stage.messages() == []
    await stage.start()
    assert await stage.told(2, 1) == {94}
    assert len(raws_in(stage.repo)) == 1


async def test_a_raw_by_two_names_is_there_once(stage) -> None:
    await stage.start()
    write_raw(stage.raws, 3, "R22_S11")
    await stage.told(3, 1)
    write_raw(stage.raws / "again", 3, "R22_S11")
    write_raw(stage.raws, 3, "R22_S12")
    await stage.told(3, 2)
    assert len(raws_in(stage.repo)) == 2
    assert await stage.board.connection.run(store.get_set_aside(stage.board.prefix)) == []


async def test_a_raw_that_is_written_anew_is_replaced_and_can_be_read(stage) -> None:
    process = await stage.start()
    path = write_raw(stage.raws, 4, "R22_S11")
    await stage.told(4, 1)
    write_raw(stage.raws, 4, "R22_S11", width=60)
    await stage.wait_until(lambda: process.ingester.counts.get("replaced"), "the new file")
    assert path.exists()
    with Butler.from_config(str(stage.repo)) as butler:
        raw = butler.get("raw", instrument="LSSTCam", exposure=exposure_id(4), detector=94, collections=RUN)
    assert raw[1].data.shape == (40, 60)


async def test_bad_files_are_set_aside_with_their_reason_and_stop_no_other(stage) -> None:
    stage.raws.mkdir()
    whole = make_raw(5)
    (stage.raws / raw_name(5, "R22_S11")).write_bytes(whole[: len(whole) // 2])
    (stage.raws / raw_name(5, "R22_S12")).write_bytes(b"no FITS at all")
    (stage.raws / raw_name(5, "R22_S10")).write_bytes(b"")
    write_raw(stage.raws, 5, "R22_S00")
    await stage.start()
    records = {record.uri.rsplit("/", 1)[-1]: record for record in await stage.aside(3)}
    assert {name: record.code for name, record in records.items()} == {
        raw_name(5, "R22_S11"): "raw_truncated",
        raw_name(5, "R22_S12"): "raw_not_fits",
        raw_name(5, "R22_S10"): "raw_empty",
    }
    assert records[raw_name(5, "R22_S11")].detector == 94
    await stage.told(5, 1)
    write_raw(stage.raws, 5, "R22_S11")  # the transfer is done again
    await stage.told(5, 2)

    async def only_two() -> bool:
        return len(await stage.board.connection.run(store.get_set_aside(stage.board.prefix))) == 2

    await stage.wait_until(only_two, "the mended file is no longer set aside")


async def test_an_exposure_the_repository_refuses_is_set_aside_and_stops_no_other(stage) -> None:
    """Another exposure has this one's name: the Butler does not take two ids for one."""
    from rapid.butler.repository import RepositorySettings, open_repository

    repository = open_repository(RepositorySettings(str(stage.repo)), CAMERA)
    registry = repository.butler.registry
    here = {"instrument": "LSSTCam"}
    registry.insertDimensionData("day_obs", {**here, "id": 20261120})
    registry.insertDimensionData("group", {**here, "name": "x"})
    registry.insertDimensionData("physical_filter", {**here, "name": "r_57", "band": "r"})
    registry.insertDimensionData(
        "exposure",
        {
            **here,
            "id": 99,
            "obs_id": "MC_O_20261120_000006",
            "day_obs": 20261120,
            "group": "x",
            "physical_filter": "r_57",
        },
    )
    repository.close()
    write_raw(stage.raws, 6, "R22_S11")
    for name in NAMES[:4]:
        write_raw(stage.raws, 8, name)
    await stage.start()
    await stage.told(8, 4)
    (record,) = await stage.aside(1)
    assert record.exposure_id == exposure_id(6)
    assert record.attempts == QUICK.max_attempts
    assert record.code == "ingest_refused"
    assert record.reason
    assert len(raws_in(stage.repo)) == 4


async def test_a_repository_that_is_away_for_a_while_uses_up_no_attempts(stage) -> None:
    desk = make_desk(stage.repo)
    away = threading.Event()
    away.set()
    n_refused = threading.Semaphore(0)
    ingest = desk._ingest_raws

    def ingest_if_there(items):
        if away.is_set():
            from rapid.ingest.decide import Failure
            from rapid.ingest.desk import Outcome

            n_refused.release()
            return [Outcome(item, failure=Failure.OUTAGE, code="store_failed", reason="away") for item in items]
        return ingest(items)

    desk._ingest_raws = ingest_if_there
    process = await stage.start(desk=desk, policy=RetryPolicy(max_attempts=2, pause_s=0.01, pause_max_s=0.05))
    for name in NAMES[:3]:
        write_raw(stage.raws, 9, name)
    for _ in range(6):
        assert await asyncio.to_thread(n_refused.acquire, timeout=30)

    async def says_so() -> bool:
        statuses = await stage.board.connection.run(store.get_statuses(stage.board.prefix))
        return bool(statuses) and not statuses[0].is_up and statuses[0].error == "away"

    await stage.wait_until(says_so, "the outage shows")
    away.clear()
    assert len(await stage.told(9, 3)) == 3
    assert process.ingester.counts["ingested"] == 3
    assert await stage.board.connection.run(store.get_set_aside(stage.board.prefix)) == []


async def test_a_repository_that_cannot_be_opened_at_first_is_tried_again(stage) -> None:
    desk = make_desk(stage.repo)
    n_left = [2]
    open_ = desk.open

    def open_later() -> None:
        if n_left[0]:
            n_left[0] -= 1
            raise StoreError("the database starts")
        open_()

    desk.open = open_later
    process = await stage.start(desk=desk)
    write_raw(stage.raws, 10, "R22_S11")
    await stage.told(10, 1)
    assert process.ingester.ready.is_set()
    assert n_left == [0]


async def test_whoever_waits_for_an_exposure_is_woken_when_it_is_in(stage) -> None:
    await stage.start()
    wanted = frozenset(CAMERA.by_name[name].id for name in NAMES[:2])
    waiting = asyncio.create_task(wait_for_ingested(stage.board, exposure_id(11), wanted, timeout_s=60))
    write_raw(stage.raws, 11, NAMES[0])
    await stage.told(11, 1)
    assert not waiting.done()
    write_raw(stage.raws, 11, NAMES[1])
    assert await waiting == wanted


async def test_a_wait_for_what_does_not_come_ends(stage) -> None:
    assert await wait_for_ingested(stage.board, exposure_id(12), None, timeout_s=0.1) == frozenset()
