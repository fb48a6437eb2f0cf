"""A whole small installation, each role with its own Redis user: it works, is steered from RubinTV, and survives a flush."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rapid.control.rules import changed_fields
from rapid.control.store import ControlStore
from rapid.dispatch.models import Event, EventKind
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.pipeline.store import default_book
from rapid.results.control_log import ControlLog
from rapid.wiring.camera import adopt_camera
from tests.roles.conftest import Roles
from tests.support.night import adopt_small_camera, make_plan, take_all
from tests.support.users import add_users, url_of

SCIENCE = [{"kind": "science", "n": 1, "physical_filter": "r_57"}]


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Roles]:
    adopt_small_camera(tmp_path, monkeypatch)
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        started = Roles(tmp_path, valkey)
        add_users(valkey.url, "SmallCam9")
        with redis.Redis.from_url(valkey.url) as client:
            client.config_set("notify-keyspace-events", "K$")
        yield started
        started.close()


def is_summary(event: Event, exposure_id: int) -> bool:
    return event.kind is EventKind.SUMMARY_READY and event.exposure_id == exposure_id and event.data["n_finished"] >= 2


def _log(roles: Roles, name: str) -> str:
    return (roles.folder / f"{name}.log").read_text()


@pytest.mark.timeout(900)  # on a busy machine each process takes a minute to start
def test_roles_with_their_own_users_are_steered_from_rubintv_and_survive_a_flush(roles):
    with redis.Redis.from_url(roles.valkey.url) as client:
        client.execute_command("FUNCTION", "FLUSH")  # only the head may load them
    for role in ("worker", "gather", "head"):
        roles.start(role, role, redis_url=url_of(role, roles.valkey.url))
    roles.wait_for(lambda e: e.kind is EventKind.WORKER_JOINED, timeout_s=240)
    (one,) = take_all(make_plan(SCIENCE), roles.raws)
    assert roles.wait_for_summary(one, timeout_s=240).data["is_complete"]

    store = ControlStore(roles.board.connection, adopt_camera("SmallCam9"), default_book())
    rubintv = redis.Redis.from_url(url_of("rubintv", roles.valkey.url), decode_responses=True)
    with rubintv, rubintv.pubsub(ignore_subscribe_messages=True) as page:
        controls = ("CHIP_SELECTION", "WITNESS_DETECTOR", "RESET_SFM_SET_0", "RESET_HEAD_NODE")
        page.subscribe(*(f"__keyspace@0__:RUBINTV_CONTROL_{name}_READBACK" for name in controls))

        def send(name: str, value: str) -> str:
            key = f"RUBINTV_CONTROL_{name}"
            rubintv.set(key, value)
            for _ in range(100):
                message = page.get_message(timeout=60)
                if message and message["channel"] == f"__keyspace@0__:{key}_READBACK" and message["data"] == "set":
                    return rubintv.get(f"{key}_READBACK")
            pytest.fail(f"no readback of {name}: {_log(roles, 'head')[-2000:]}")

        assert send("CHIP_SELECTION", "R22_S0").startswith("REJECTED: ")
        assert send("CHIP_SELECTION", "R22_S00 | R22_S11") == "R22_S00 | R22_S11"
        assert send("RESET_SFM_SET_0", "1") == "RESTARTING 1 workers"
        (two,) = take_all(make_plan(SCIENCE, first_seq_num=2), roles.raws)
        # Two at least: the backlog may be quicker than the gather.
        roles.wait_for(lambda e: is_summary(e, two), timeout_s=240)
        assert "payload process started anew" in _log(roles, "worker")

        assert send("RESET_HEAD_NODE", "1") == "RESET"
        # The head leads again, and listens. Its new lead shows all readbacks once, this one among them.
        assert "93" in {send("WITNESS_DETECTOR", "93"), send("WITNESS_DETECTOR", "93")}
        roles.wait_for(lambda e: e.kind is EventKind.CONTROL_CHANGED and e.data.get("version") == 2)
        assert _log(roles, "head").count("head leads") == 2

    before = store.read()
    kept = ControlLog(roles.results.engine)
    deadline = time.monotonic() + 60
    while [record.version for record in kept.changes("SmallCam9", limit=1)] != [before.version]:
        assert time.monotonic() < deadline, _log(roles, "head")[-2000:]
    with redis.Redis.from_url(roles.valkey.url) as client:
        client.flushdb()
    roles.hear_from_the_beginning()
    roles.wait_for(lambda e: e.kind is EventKind.CONTROL_CHANGED and e.data.get("restored"))
    after = store.read()
    assert changed_fields(before.state.model_dump(mode="json"), after.state.model_dump(mode="json")) == {}, after
    assert [entry.door for entry in store.history()] == ["rubintv", "rubintv"]

    (three,) = take_all(make_plan(SCIENCE, first_seq_num=3), roles.raws)
    roles.wait_for(lambda e: is_summary(e, three), timeout_s=240)
    for name in ("head", "worker", "gather"):
        assert "NOPERM" not in _log(roles, name).upper()
        assert "no permission" not in _log(roles, name).lower()
        assert roles.stop(name) == 0
    with redis.Redis.from_url(roles.valkey.url) as client:
        denied = [
            entry for entry in client.acl_log() if entry["username"] != "rapid-head" or "config" not in entry["object"]
        ]
    assert not [entry for entry in denied if "function|load" not in entry["object"]], denied
