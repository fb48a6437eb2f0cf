"""Requests about calibs that are there: certified with an override, refused without one, by whoever asked."""

from datetime import UTC, datetime

import pytest

from rapid.client import RequestNotDoneError
from rapid.results.models import CalibRecord, CalibState

WAIT_S = 30.0


def add(stage, calib_id: str, **changes) -> CalibRecord:
    record = CalibRecord(
        calib_id=calib_id, camera=stage.camera.name, detector=stage.camera.detectors[0].id, kind="bias",
        valid_from=datetime(2026, 11, 20, 20), version=1, path=f"{calib_id}.fits", sha256=calib_id,  # noqa: DTZ001 - TAI
        created_at=datetime.now(UTC), **changes,
    )  # fmt: skip
    return stage.results.add_calib(lambda version: record.model_copy(update={"version": version}))


async def ask(stage, *ids: str, action: str, **more):
    return await stage.client.request(select={"calibs": {"ids": list(ids), "action": action, **more}}, accept_s=WAIT_S)


async def test_an_override_is_certified_and_says_who_asked(stage):
    add(stage, "bad", state=CalibState.REJECTED, outcome="fail", failures=["C00 NOISE"])
    request = await ask(stage, "bad", action="certify", override=True, reason="known")
    answer = await request.wait(WAIT_S)
    (standing,) = answer.calibs
    assert (standing.state.value, standing.is_overridden, standing.failures) == ("certified", True, ("C00 NOISE",))
    event = stage.results.calib_events(stage.camera.name, "bad")[-1]
    assert (event.state.value, event.author, event.reason, event.is_override) == ("certified", "tester", "known", True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"action": "certify"}, "override it, with a reason"),
        ({"action": "verify"}, "build of"),
    ],
)
async def test_what_cannot_be_done_fails_and_changes_nothing(stage, words, message):
    add(stage, "bad", state=CalibState.REJECTED, outcome="fail", failures=["C00 NOISE"])
    request = await ask(stage, "bad", **words)
    with pytest.raises(RequestNotDoneError) as caught:
        await request.wait(WAIT_S)
    assert message in caught.value.record.error.message
    assert stage.results.calib(stage.camera.name, "bad").state is CalibState.REJECTED


async def test_all_or_none(stage):
    add(stage, "fine")
    request = await ask(stage, "fine", "nothing", action="reject", reason="both")
    with pytest.raises(RequestNotDoneError):
        await request.wait(WAIT_S)
    assert stage.results.calib(stage.camera.name, "fine").state is CalibState.CERTIFIED
    request = await ask(stage, "fine", action="reject", reason="this one")
    await request.wait(WAIT_S)
    assert stage.results.calib(stage.camera.name, "fine").state is CalibState.REJECTED
