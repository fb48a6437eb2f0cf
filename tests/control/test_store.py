"""The control state on a real server: changes are atomic, audited and heard of."""

import json
import threading

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapid.control.models import ControlState
from rapid.control.store import BetweenPairError, VersionChangedError
from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, EventKind, Priority, WorkerMode, WorkerSpec
from rapid.errors import ConfigurationError, StoreError
from tests.support.valkey import calls_between

STATE = "rapid:{LSSTCam}:control_state"
LOG = "rapid:{LSSTCam}:control_log"
WAIT_S = 30.0


def post(board: Board, seq_num: int, *, image_type: str = "cwfs", priority=Priority.CURRENT, **info: object) -> None:
    board.post(
        BatchSpec(
            key=BatchKey(exposure_id=2026112000000 + seq_num, pipeline="donut"),
            camera="LSSTCam",
            image_type=image_type,
            expected=frozenset({1}),
            info=info,
            priority=priority,
        )
    )


def test_a_state_never_changed_is_the_defaults(store):
    document = store.read()
    assert (document.version, document.state) == (0, ControlState())
    assert store.history() == []


def test_a_change_is_read_back_counted_audited_and_told(store, board):
    document = store.change(
        {"pattern": "minimal", "timeouts": {"gather_s": 8}}, by="ann@summit", door="cli", reason="clouds"
    )
    assert store.read() == document
    (entry,) = store.history()
    assert entry.before == {"pattern": "all", "timeouts.gather_s": None}
    assert entry.after == {"pattern": "minimal", "timeouts.gather_s": 8.0}
    assert (entry.version, entry.changed_by, entry.door, entry.reason) == (1, "ann@summit", "cli", "clouds")
    assert abs(entry.changed_ms - board.now_ms()) < 60_000
    (event,) = [e for e in board.events("0", timeout_s=1) if e.kind is EventKind.CONTROL_CHANGED]
    assert event.data["version"] == 1
    assert event.data["fields"] == ["pattern", "timeouts.gather_s"]
    assert board.status().counters["control_changes"] == 1


def test_reading_is_one_round_trip(store, valkey):
    store.read()
    assert [call.split()[0] for call in calls_between(valkey, store.read)] == ["HGETALL"]


def test_a_change_that_changes_nothing_leaves_no_trace(store):
    store.change({"pattern": "minimal"}, by="ann", door="cli")
    assert store.change({"pattern": "minimal"}, by="bob", door="cli").version == 1
    assert len(store.history()) == 1


def test_an_invalid_change_changes_nothing_and_is_counted(store, board, client):
    with pytest.raises(ConfigurationError) as refused:
        store.change({"pattern": "R99"}, by="ann", door="cli")
    assert refused.value.field == "pattern"
    assert not client.exists(STATE)
    assert board.status().counters["control_refused"] == 1


def test_whoever_has_seen_an_older_version_is_told(store):
    store.change({"pattern": "minimal"}, by="ann", door="cli", expected_version=0)
    with pytest.raises(VersionChangedError) as refused:
        store.change({"visit_mode": "alternating"}, by="bob", door="http", expected_version=0)
    assert refused.value.facts["version"] == 1
    assert store.read().version == 1


def test_changes_made_at_the_same_time_all_take_effect(valkey, camera, make_store, store):
    names = [f"p{n}" for n in range(8)]
    start = threading.Barrier(len(names))
    failed: list[BaseException] = []

    def save(name: str) -> None:
        try:
            with Board(valkey.url, "LSSTCam") as board:
                mine = make_store(board)
                start.wait(WAIT_S)
                for n in range(5):
                    mine.change({"patterns": {f"{name}_{n}": "R22"}}, by=name, door="cli")
        except BaseException as error:  # noqa: BLE001 - shown below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=save, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not failed
    document = store.read()
    assert len(document.state.patterns) == 40
    assert document.version == 40
    assert [entry.version for entry in store.history(100)] == list(range(40, 0, -1))


def test_a_change_whose_answer_was_lost_is_not_made_twice(store, board):
    talk = store._say.change({"pattern": "minimal"}, by="ann", door="cli", reason="", expected_version=0)
    send = board.connection._send
    command = next(talk)
    command = talk.send(send(command))
    send(command)  # the server does it; the answer never comes, and the connection sends it again
    command = talk.send(send(command))
    answer = send(command)
    with pytest.raises(StopIteration) as end:
        talk.send(answer)
    assert end.value.value.version == 1
    assert store.read().version == 1


def test_the_worker_mode_takes_effect_with_the_change(store, board):
    store.change({"worker_mode": "waiting"}, by="ann", door="cli")
    post(board, 1, image_type="science", priority=Priority.BACKLOG)
    board.arrive(BatchKey(exposure_id=2026112000001, pipeline="donut"), {1: "/raws/1.fits"})
    me = WorkerSpec(worker_id="w")
    assert board.claim(me) is None
    with_keeper = threading.Thread(target=board.keep_leases, kwargs={"timeout_s": 1})
    with_keeper.start()
    store.change({"worker_mode": "MURDEROUS"}, by="ann", door="cli")
    assert board.claim(me, timeout_s=WAIT_S) is not None
    with_keeper.join(WAIT_S)
    assert board.status().mode is WorkerMode.PREEMPTING


def test_a_waiter_is_woken_by_the_change_and_by_nothing_else(valkey, make_store, store, board):
    assert store.wait(after_version=0, timeout_s=0.05) is None
    woken = []
    with Board(valkey.url, "LSSTCam") as other:
        waiter = threading.Thread(target=lambda: woken.append(make_store(other).wait(0, WAIT_S)))
        waiter.start()
        board.publish(EventKind.WORKER_JOINED)
        store.change({"pattern": "minimal"}, by="ann", door="cli")
        waiter.join(WAIT_S)
    assert woken[0].version == 1
    assert store.wait(after_version=0, timeout_s=0).version == 1


def test_the_log_on_the_server_is_bounded(store, client):
    for n in range(510):
        store.change({"witness_detector": n % 200}, by="ann", door="cli")
    assert client.llen(LOG) == 500
    assert store.history(1000)[0].version == store.read().version


def test_names_and_reasons_are_kept_on_one_line(store):
    store.change({"pattern": "minimal"}, by="an\x00n\n", door="cli", reason="a\ud800\x1b[31m\nb")
    (entry,) = store.history()
    assert (entry.changed_by, entry.reason) == ("an n", "a? [31m b")
    with pytest.raises(ConfigurationError, match="1000"):
        store.change({"pattern": "all"}, by="ann", door="cli", reason="x" * 1001)


# Pairs


@pytest.mark.parametrize("info", [{"reason": "intra_FAM"}, {"reason": "INTRA"}, {"focus_z_mm": -1.5, "group_id": "g"}])
def test_the_pairs_pipeline_stays_until_the_second_exposure(store, board, info):
    store.change({"pipelines": {"cwfs": "quicklook"}}, by="ann", door="cli")
    post(board, 1, **info)
    with pytest.raises(BetweenPairError) as refused:
        store.change({"pipelines": {"cwfs": "donut"}}, by="ann", door="cli")
    assert refused.value.facts["field"] == "pipelines.cwfs"
    store.change({"pattern": "minimal", "pipelines": {"science": "quicklook"}}, by="ann", door="cli")
    post(board, 2, reason="extra_FAM", focus_z_mm=1.5)
    assert store.change({"pipelines": {"cwfs": "donut"}}, by="ann", door="cli").state.pipelines["cwfs"] == "donut"


def test_an_older_exposure_neither_begins_nor_ends_a_pair(store, board):
    post(board, 5, reason="intra")
    post(board, 3, image_type="science")
    post(board, 4, reason="extra", priority=Priority.BACKLOG)
    with pytest.raises(BetweenPairError):
        store.change({"pipelines": {"cwfs": "quicklook"}}, by="ann", door="cli")
    post(board, 6, image_type="science")
    post(board, 2, reason="intra")
    store.change({"pipelines": {"cwfs": "quicklook"}}, by="ann", door="cli")


def test_a_partner_that_never_comes_is_not_waited_for_for_ever(store, board):
    post(board, 1, reason="intra")
    board.advance_clock(11 * 60_000)
    store.change({"pipelines": {"cwfs": "quicklook"}}, by="ann", door="cli")


# What others write there


def test_a_document_that_cannot_be_read_is_an_error_that_says_so(store, client):
    client.hset(
        STATE, mapping={"version": 3, "state": '{"pattern": 5}', "changed_by": "x", "changed_ms": 1, "reason": ""}
    )
    with pytest.raises(StoreError, match="cannot be read") as refused:
        store.read()
    assert refused.value.facts["error"] == "unreadable"


def test_a_key_of_another_type_is_an_error_of_the_store(store, client):
    client.set(STATE, "x")
    with pytest.raises(StoreError):
        store.read()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    document=st.dictionaries(
        st.sampled_from(["version", "state", "changed_by", "changed_ms", "reason", "more"]),
        st.binary(max_size=40) | st.sampled_from([b"1", b"{}", b'{"pattern": "all"}', b"null", b"-5"]),
    ),
    entries=st.lists(st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", b'{"version": 1}']), max_size=3),
)
def test_whatever_stands_there_reading_gives_a_document_or_an_error_of_the_store(store, client, document, entries):
    client.delete(STATE, LOG)
    if document:
        client.hset(STATE, mapping=document)
    if entries:
        client.lpush(LOG, *entries)
    try:
        assert isinstance(store.read().state, ControlState)
    except StoreError as error:
        assert "cannot be read" in error.message  # noqa: PT017 - the other outcome is a document
    assert isinstance(store.history(), list)


def test_no_entry_of_the_log_is_lost_to_another_one_that_is_broken(store, client):
    store.change({"pattern": "minimal"}, by="ann", door="cli")
    client.lpush(LOG, "{", json.dumps({"version": "x"}))
    assert [entry.version for entry in store.history()] == [1]


def test_a_server_that_is_away_is_an_error_of_the_store(camera, make_store):
    with Board("redis://127.0.0.1:1", "LSSTCam", outage_s=0.1) as board, pytest.raises(StoreError):
        make_store(board).read()


def test_the_functions_are_loaded_where_they_are_missing(store, client: redis.Redis):
    client.execute_command("FUNCTION", "FLUSH")
    assert store.change({"pattern": "minimal"}, by="ann", door="cli").version == 1
