"""Announcements come in by HTTP, are known until they expire, and are tied to the exposures of their group."""

import asyncio
import json
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI

from rapid.access import Access, AccessSettings
from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec, WorkerSpec
from rapid.next_visit import store
from rapid.next_visit.desk import VisitDesk
from rapid.next_visit.http import visit_router
from rapid.next_visit.models import LINGER_S, NextVisit, NextVisitCanceled, messages_of
from rapid.worker.messages import Preload
from rapid.worker.preload import Preloader
from tests.support.valkey import serve_valkey

GROUP = "2026-11-20T03:04:05.678"
FROM_THE_SUMMIT = {
    "salIndex": 1,
    "scriptSalIndex": 100017,
    "groupId": GROUP,
    "coordinateSystem": 2,
    "position": [134.5, -65.25],
    "startTime": 1795143882.0,
    "rotationSystem": 2,
    "cameraAngle": 12.5,
    "filters": "r_57",
    "dome": 2,
    "duration": 35.0,
    "nimages": 2,
    "instrument": "LSSTCam",
    "survey": "BLOCK-365",
    "totalCheckpoints": 0,
    "private_sndStamp": 1795143800.0,
    "private_origin": 42,
}

CANCELED = {"groupId": GROUP, "scriptSalIndex": 100017}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
async def board(valkey):
    async with AsyncBoard(valkey.url, "LSSTCam") as found:
        await found.load()
        await found.connection.run(_flush())
        await found.load()
        yield found


def _flush():
    from rapid.dispatch.talk import Command

    yield Command(("FLUSHDB",))


TOKEN = "for-the-script-queue"
MAY = {"Authorization": f"Bearer {TOKEN}"}


def client_of(desk: VisitDesk, *, token: str | None = TOKEN, headers: dict[str, str] = MAY) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(visit_router(desk, Access(AccessSettings(token=token))))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://head", headers=headers)


@pytest.mark.parametrize(
    ("token", "headers", "status", "why"),
    [
        (TOKEN, {}, 401, "needs a token"),
        (TOKEN, {"Authorization": "Bearer guessed-it"}, 401, "wrong token"),
        (None, MAY, 403, "no token is configured"),
    ],
    ids=["no token", "a wrong one", "none is configured"],
)
async def test_a_stranger_announces_and_cancels_nothing_and_may_read(board, token, headers, status, why) -> None:
    desk = VisitDesk("LSSTCam", board)
    await desk.announce(NextVisit.model_validate(FROM_THE_SUMMIT))
    async with client_of(desk, token=token, headers=headers) as client:
        for path, body in (("/next_visit", {**FROM_THE_SUMMIT, "groupId": "new"}), ("/next_visit_canceled", CANCELED)):
            answer = await client.post(path, json=body)
            assert (answer.status_code, why in answer.json()["detail"]) == (status, True), answer.text
        found = (await client.get("/next_visits")).json()
    assert [one["visit"]["group_id"] for one in found] == [GROUP]


async def test_the_summits_message_is_taken_in_every_wrapping_and_once(board) -> None:
    async with client_of(VisitDesk("LSSTCam", board)) as client:
        answer = await client.post("/next_visit", json=FROM_THE_SUMMIT)
        assert (answer.status_code, answer.json()) == (202, {"announced": 1, "known": 0, "ignored": 0})
        fanned_out = {**FROM_THE_SUMMIT, "groupId": "other", "position": "[134.5, -65.25]", "detector": 94}
        elsewhere = {**FROM_THE_SUMMIT, "instrument": "LATISS"}
        batch = [{"topic": "t", "value": {"message": FROM_THE_SUMMIT}}, {"value": fanned_out}, {"value": elsewhere}]
        answer = await client.post("/next_visit", json=batch)
        assert answer.json() == {"announced": 1, "known": 1, "ignored": 1}
        known = {one["visit"]["group_id"]: one["visit"] for one in (await client.get("/next_visits")).json()}
    assert known[GROUP]["position"] == known["other"]["position"] == [134.5, -65.25]
    assert (known[GROUP]["detectors"], known["other"]["detectors"]) == (None, [94])


async def test_a_visit_fanned_out_by_detector_is_one_visit_of_all_of_them(board) -> None:
    one_each = [FROM_THE_SUMMIT | {"detector": number, "cameraAngle": float("nan")} for number in range(30)]
    async with client_of(VisitDesk("LSSTCam", board)) as client:

        async def post(message) -> dict[str, int]:
            return (await client.post("/next_visit", content=json.dumps(message))).json()

        answers = await asyncio.gather(*(post(one) for one in one_each))
        assert [one["announced"] for one in answers] == [1] * 30
        assert (await post(one_each))["known"] == 30
        (state,) = (await client.get("/next_visits")).json()
        assert state["visit"]["detectors"] == list(range(30))
        await post(FROM_THE_SUMMIT | {"detector": 7, "duration": 99.0})  # said anew and otherwise
        (state,) = (await client.get("/next_visits")).json()
        assert (state["visit"]["detectors"], state["visit"]["duration"]) == ([7], 99.0)
        assert (await post(FROM_THE_SUMMIT | {"duration": 99.0}))["announced"] == 1
        assert (await client.get("/next_visits")).json()[0]["visit"]["detectors"] is None


@dataclass
class Child:
    """A payload child that notes what it is told to make ready."""

    told: asyncio.Queue[Preload] = field(default_factory=asyncio.Queue)

    async def preload(self, preload: Preload) -> bool:
        self.told.put_nowait(preload)
        return False


async def test_a_worker_makes_every_detector_of_a_fanned_out_visit_ready_once_and_lets_go_of_all(board) -> None:
    child = Child()
    idle = asyncio.Event()
    idle.set()
    spec = WorkerSpec(worker_id="w", pools=("main",))
    preloader = Preloader(spec, load_camera("LSSTCam"), board, is_idle=idle, child=lambda: child)
    desk = VisitDesk("LSSTCam", board)
    await desk.announce(NextVisit.model_validate(FROM_THE_SUMMIT | {"detector": 3}))
    work = asyncio.create_task(preloader.run())
    try:
        async with asyncio.timeout(60.0):
            assert (await child.told.get()).detector == 3
            for number in (94, 3, 5):
                await desk.announce(NextVisit.model_validate(FROM_THE_SUMMIT | {"detector": number}))
            assert {(await child.told.get()).detector for _ in range(2)} == {94, 5}
            await desk.cancel(NextVisitCanceled.model_validate(CANCELED))
            last = await child.told.get()
            assert (last.is_release, last.group_id) == (True, GROUP)
        assert child.told.empty()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"groupId": ""}, "groupId"),
        ({"groupId": None}, "groupId"),
        ({"position": "here"}, "position"),
        ({"position": [1.0]}, "position"),
        ({"nimages": -1}, "nimages"),
        ({"coordinateSystem": 9}, "coordinateSystem"),
        ({"duration": "long"}, "duration"),
        ({"startTime": 1795143882000.0}, "startTime"),
        ({"detector": "R22_S11"}, "detectors"),
    ],
    ids=[
        "empty group",
        "no group",
        "no numbers",
        "half a position",
        "negative",
        "unknown system",
        "no duration",
        "milliseconds",
        "a detector's name",
    ],
)
async def test_a_message_that_makes_no_sense_is_refused_by_its_field(board, change, field) -> None:
    async with client_of(VisitDesk("LSSTCam", board)) as client:
        answer = await client.post("/next_visit", json=FROM_THE_SUMMIT | change)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["field"].startswith(field)
        assert (await client.get("/next_visits")).json() == []


@pytest.mark.parametrize("body", [b"", b"{", b"7", b'"x"', b"[[]"], ids=["nothing", "half", "number", "text", "list"])
async def test_a_body_that_is_no_message_is_refused(board, body) -> None:
    async with client_of(VisitDesk("LSSTCam", board)) as client:
        assert (await client.post("/next_visit", content=body)).status_code == 422


async def test_a_canceled_visit_is_gone_and_told_of_once(board) -> None:
    desk = VisitDesk("LSSTCam", board)
    async with client_of(desk) as client:
        await client.post("/next_visit", json=FROM_THE_SUMMIT)
        canceled = {"scriptSalIndex": 100017, "groupId": GROUP}
        assert (await client.post("/next_visit_canceled", json=canceled)).json() == {"canceled": 1, "unknown": 0}
        assert (await client.post("/next_visit_canceled", json=canceled)).json() == {"canceled": 0, "unknown": 1}
    assert await desk.states() == []
    news = await board.connection.run(store.follow(board.prefix, "0-0", timeout_s=0.01))
    assert [one.visit is None for one in news] == [False, True]


async def test_a_visit_that_never_comes_leaves_nothing_behind(board, valkey) -> None:
    import redis

    visit = NextVisit.model_validate(FROM_THE_SUMMIT | {"startTime": 0.0})
    await board.connection.run(store.announce(board.prefix, visit, life_s=0.4, now_ms=1))
    with redis.Redis.from_url(valkey.url) as client:
        assert 0 < client.pttl(f"{board.prefix}visit:{GROUP}") <= 1000
        client.delete(f"{board.prefix}visit:{GROUP}")  # as its expiry does
        assert await VisitDesk("LSSTCam", board).states() == []
        assert client.zcard(f"{board.prefix}visits_recent") == 0
    assert await board.recent() == []


async def test_snaps_are_tied_to_their_visit_in_their_order(board) -> None:
    desk = VisitDesk("LSSTCam", board)
    await desk.announce(NextVisit.model_validate(FROM_THE_SUMMIT))
    for index, (seq_num, group) in enumerate([(8, GROUP), (7, GROUP), (9, "another")]):
        await board.post(
            BatchSpec(
                key=BatchKey(exposure_id=2026112000000 + seq_num, pipeline="quicklook"),
                camera="LSSTCam",
                image_type="science",
                expected=frozenset({94}),
                raws={94: "/raws/x.fits"},
                info={"group_id": group, "group_index": 2 - index},
            )
        )
        (state,) = await desk.states()
        assert state.is_whole == (index >= 1)
    assert state.exposures == (2026112000007, 2026112000008)


def test_an_announcement_counts_until_it_should_have_been_over_for_a_while() -> None:
    visit = NextVisit.model_validate(FROM_THE_SUMMIT | {"startTime": 1000.0 + 37.0})
    assert visit.life_s(now_s=900.0) == 100.0 + 35.0 + LINGER_S
    assert visit.life_s(now_s=2000.0) == 35.0 + LINGER_S
    assert NextVisit(groupId="g", instrument="x", startTime=4e9).life_s(now_s=0.0) == 6 * 3600.0


def test_filters_are_named_or_told_by_their_band_and_none_is_any() -> None:
    visit = NextVisit(groupId="g", instrument="LSSTCam", filters="r_57, i")
    assert [visit.has_filter(name) for name in ("r_57", "i_39", "g_6", None)] == [True, True, False, False]
    assert NextVisit(groupId="g", instrument="LSSTCam").has_filter("g_6")


def test_what_is_no_pointing_on_the_sky_is_none() -> None:
    sky = NextVisit.model_validate(FROM_THE_SUMMIT)
    assert sky.sky == (134.5, -65.25)
    assert sky.begin.isoformat() == "2026-11-20T03:04:42"
    assert NextVisit.model_validate(FROM_THE_SUMMIT | {"coordinateSystem": 4}).sky is None
    assert NextVisit.model_validate(FROM_THE_SUMMIT | {"position": [float("nan"), 0.0]}).position is None
    assert messages_of({"records": [{"value": {"message": {"a": 1}}}]}) == [{"a": 1}]
