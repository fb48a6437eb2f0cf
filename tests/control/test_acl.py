"""Redis users: each role can do all that it needs, and no more."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from rapid.control.store import ControlStore
from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, EventKind, Order, WorkerMode, WorkerSpec
from rapid.dispatch.restart import order_restart
from rapid.dispatch.users import ROLES, render_users, rules_of, user_name
from rapid.dispatch.valkey import EmbeddedValkey, free_port, server_binary
from rapid.errors import ConfigurationError, NotFoundError, StoreError
from rapid.requests.commands import RequestCommands
from rapid.results.models import DetectorState
from tests.support.users import PASSWORDS, add_users, remove_users, url_of

REFUSED = r"(?i)permission"
KEY = BatchKey(exposure_id=2026112000001, pipeline="quicklook")


def spec(n_detectors: int = 4, **facts: object) -> BatchSpec:
    detectors = range(n_detectors)
    return BatchSpec(
        key=KEY,
        camera="LSSTCam",
        image_type="science",
        expected=frozenset(detectors),
        raws={detector: f"/raws/{detector}.fits" for detector in detectors},
        **facts,
    )


@pytest.fixture
def board_of(valkey: EmbeddedValkey, client: redis.Redis) -> Iterator[Callable[[str], Board]]:
    add_users(valkey.url, "LSSTCam")
    boards: list[Board] = []

    def make(role: str) -> Board:
        boards.append(Board(url_of(role, valkey.url), "LSSTCam", outage_s=2))
        return boards[-1]

    make("head").load()
    yield make
    for board in boards:
        board.close()
    remove_users(valkey.url)


@pytest.fixture
def client_of(valkey: EmbeddedValkey, board_of: Callable[[str], Board]) -> Callable[[str], redis.Redis]:
    return lambda role: redis.Redis.from_url(url_of(role, valkey.url), decode_responses=True)


def test_each_role_can_do_its_part_of_an_exposure(board_of, make_store):
    head, worker, gather, display = (board_of(role) for role in ("head", "worker", "gather", "display"))
    token, _ = head.lead("h", ttl_ms=60_000)
    for role in (worker, gather, display):
        role.load()
        role.ping()
    me = WorkerSpec(worker_id="w", pools=("science", "wavefront"))
    assert worker.claim(me) is None
    receipt = head.post(spec(), lead_token=token)
    assert receipt.queued == 4
    head.expect(KEY, range(4))
    (job,) = [worker.claim(me, timeout_s=5)]
    assert worker.heartbeat("w", job).held
    job = worker.complete(job, {"sky_level_adu": 1.0}, claim_next=True)
    assert worker.release(job) == "queued"
    job = worker.claim(me, timeout_s=5)
    worker.fail(job, {"code": "payload_failed", "message": "no", "retry": "never"})
    while (job := worker.claim(me)) is not None:
        worker.complete(job, {})
    work = gather.next_gather("g", timeout_s=5)
    gather.renew_gather(work)
    assert gather.complete_gather(work, {"is_complete": False}) == 1
    gather.tick()
    assert display.state(KEY).finished == frozenset(work.finished)
    assert display.status().dead_letters == 1
    assert EventKind.SUMMARY_READY in {event.kind for event in display.events("0", timeout_s=1)}
    assert display.recent() == [KEY]
    assert display.dead_letters()[0].detector is not None
    assert make_store(display).change({"pattern": "minimal"}, by="ann", door="http").version == 1
    operator = board_of("operator")
    operator.retry_dead_letter(display.dead_letters()[0].job_id)
    assert operator.connection.run(order_restart(operator.prefix, "wavefront")) == 1
    assert worker.wait_for_order("w", timeout_s=5).order is Order.RESTART
    worker.leave("w")
    head.resign("h", token)


@pytest.mark.parametrize("role", ["worker", "gather", "script"])
def test_who_may_not_steer_can_neither_change_control_nor_the_worker_mode(board_of, client_of, make_store, store, role):
    store.change({"pattern": "minimal"}, by="ann", door="cli")
    board = board_of(role)
    intruder: ControlStore = make_store(board)
    assert intruder.read().state.pattern == "minimal"
    with pytest.raises(StoreError, match=REFUSED):
        intruder.change({"pattern": "all"}, by=role, door="cli")
    with pytest.raises(StoreError, match=REFUSED):
        intruder.restore(-1, intruder.read(), [])
    with pytest.raises(StoreError, match=REFUSED):
        board.set_mode(WorkerMode.WAITING)
    client = client_of(role)
    for command in (
        ("HSET", f"{board.prefix}control_state", "version", "9"),
        ("DEL", f"{board.prefix}control_state"),
        ("HSET", f"{board.prefix}control", "mode", "waiting"),
        ("LPUSH", f"{board.prefix}control_log", "{}"),
        ("SET", "RUBINTV_CONTROL_CHIP_SELECTION", "ALL"),
        ("RENAME", f"{board.prefix}counters", f"{board.prefix}control_state"),
        ("EVAL", "return redis.call('DEL', KEYS[1])", "1", f"{board.prefix}control_state"),
        ("FUNCTION", "LOAD", "REPLACE", "#!lua name=rapid_v1\nredis.register_function('x', function() return 1 end)"),
        ("CONFIG", "SET", "maxmemory", "1mb"),
        ("ACL", "SETUSER", user_name(role), "allkeys"),
        ("FLUSHALL",),
        ("KEYS", "*"),
    ):
        with pytest.raises(NoPermissionError):
            client.execute_command(*command)
    assert store.read().version == 1
    assert board.status().mode is WorkerMode.CONSUMING if role != "script" else True
    client.close()


@pytest.mark.parametrize("role", ["display", "script", "rubintv"])
def test_who_may_not_process_cannot_enqueue(board_of, client_of, board, role):
    board.load()
    with pytest.raises(StoreError, match=REFUSED):
        board_of(role).post(spec())
    client = client_of(role)
    for command in (
        ("ZADD", f"{board.prefix}queue:science", "1", f"{KEY.id}.000"),
        ("HSET", f"{board.prefix}batch:{KEY.id}", "spec", "{}"),
        ("LPUSH", f"{board.prefix}wake:w", "{}"),
        ("LPUSH", f"{board.prefix}orders:w", "{}"),
        ("FLUSHDB",),
    ):
        with pytest.raises(NoPermissionError):
            client.execute_command(*command)
    client.close()
    status = board.status()
    assert not status.queues
    assert board.state(KEY) is None


def test_a_display_that_changes_the_worker_mode_leaves_the_jobs_to_the_keeper(board_of, make_store):
    head, worker = board_of("head"), board_of("worker")
    store = make_store(board_of("display"))
    store.change({"worker_mode": "waiting"}, by="ann", door="http")
    head.post(spec(1, priority="backlog"))
    me = WorkerSpec(worker_id="w")
    assert worker.claim(me) is None
    store.change({"worker_mode": "MURDEROUS"}, by="ann", door="http")
    head.keep_leases(timeout_s=0.01)
    job = worker.claim(me, timeout_s=5)
    assert job is not None
    assert worker.heartbeat("w", job).mode is WorkerMode.PREEMPTING


def test_a_script_can_ask_and_wait_for_the_answer(board_of, client_of, client):
    script, prefix = client_of("script"), "rapid:{LSSTCam}:"
    script.xadd(f"{prefix}requests", {"request": "{}"})
    script.lpush("LSSTCam-FROM-OCS_DONUTPAIR", "2026112000001,2026112000002")
    client.rpush(f"{prefix}answer:r1", "{}")
    assert script.blpop([f"{prefix}answer:r1"], timeout=5) == (f"{prefix}answer:r1", "{}")
    assert script.get(f"{prefix}request:r1") is None
    with pytest.raises(NoPermissionError):
        script.set(f"{prefix}request:r1", "{}")
    with pytest.raises(NoPermissionError):
        script.lpush("LATISS-FROM-OCS_DONUTPAIR", "1,2")
    script.close()


def test_what_a_script_posts_reaches_the_head(board_of):
    script, head, display = board_of("script"), board_of("head"), board_of("display")
    say = RequestCommands("LSSTCam")
    head.connection.run(say.open_inbox())
    posts = []
    for board in (script, display):
        board.connection.run(say.post("{}", by="ocs", door="redis", outside={}))
        posts += head.connection.run(say.next_posts(5, again=False))
        assert board.connection.run(say.recent(10, refused=False)) == []
    assert len(posts) == 2


def test_rubintv_sets_its_controls_and_hears_of_readbacks(client_of, client):
    rubintv = client_of("rubintv")
    client.config_set("notify-keyspace-events", "K$")
    with rubintv.pubsub() as listener:
        listener.subscribe("__keyspace@0__:RUBINTV_CONTROL_CHIP_SELECTION_READBACK")
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        rubintv.set("RUBINTV_CONTROL_CHIP_SELECTION", "ALL")
        client.set("RUBINTV_CONTROL_CHIP_SELECTION_READBACK", "ALL")
        assert listener.get_message(timeout=5)["data"] == "set"
    assert rubintv.get("RUBINTV_CONTROL_CHIP_SELECTION_READBACK") == "ALL"
    with pytest.raises(NoPermissionError):
        rubintv.get("rapid:{LSSTCam}:control_state")
    rubintv.close()


def test_a_worker_that_finds_no_functions_waits_for_the_head_to_load_them(valkey, board_of, client):
    client.execute_command("FUNCTION", "FLUSH")
    worker = board_of("worker")
    with pytest.raises(StoreError, match=REFUSED):
        worker.load()  # in vain, for as long as an outage may last

    board_of("head").load()
    assert worker.claim(WorkerSpec(worker_id="w")) is None


def test_an_acl_file_is_what_a_server_takes_and_lets_nobody_else_in(tmp_path):
    (tmp_path / "users.acl").write_text(render_users(["LSSTCam", "LATISS"], PASSWORDS))
    port = free_port()
    server = subprocess.Popen(
        [str(server_binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", "",
         "--aclfile", str(tmp_path / "users.acl")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert any("Ready to accept" in line for line in server.stdout)
        url = f"redis://127.0.0.1:{port}"
        with redis.Redis.from_url(url) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        wrong = url_of("worker", url).replace(PASSWORDS["worker"], "something-else-entirely")
        with redis.Redis.from_url(wrong) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        with Board(url_of("head", url), "LATISS") as head, Board(url_of("worker", url), "LATISS") as worker:
            head.load()
            assert worker.claim(WorkerSpec(worker_id="w")) is None
        with redis.Redis.from_url(url_of("admin", url)) as admin:
            assert len(admin.acl_users()) == len(ROLES) + 1
    finally:
        server.terminate()
        server.stdout.close()
        assert server.wait(20) == 0


def test_the_users_of_one_camera_cannot_reach_the_board_of_another(board_of, client_of):
    client = client_of("head")
    with pytest.raises(NoPermissionError):
        client.execute_command("HSET", "rapid:{LATISS}:control_state", "version", "1")
    client.close()


def test_a_file_holds_no_password():
    text = render_users(["LSSTCam"], PASSWORDS)
    assert not [password for password in PASSWORDS.values() if password in text]
    assert hashlib.sha256(PASSWORDS["worker"].encode()).hexdigest() in text


@pytest.mark.parametrize("password", ["short", "has a blank in the middle", ""])
def test_a_weak_password_is_refused(password):
    with pytest.raises(ConfigurationError, match="worker"):
        render_users(["LSSTCam"], {"worker": password})


def test_an_unknown_role_is_refused():
    with pytest.raises(NotFoundError, match="known: head"):
        rules_of("wizard", "LSSTCam")
    with pytest.raises(ConfigurationError):
        rules_of("worker", "LSSTCam *")


def test_excluded_detectors_are_settled_by_the_head_alone(board_of):
    head = board_of("head")
    head.post(spec(2, excluded={}))
    assert head.settle(KEY, DetectorState.EXCLUDED, {1: "off"}) == 1
