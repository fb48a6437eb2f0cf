"""The server goes away, comes back, comes back empty; round trips; keys; memory (I1, I2, I6)."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from rapid.dispatch import keys
from rapid.dispatch.board import AsyncBoard, Board
from rapid.dispatch.models import WorkerMode
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.errors import LeaseLostError, StoreError
from rapid.results.models import DetectorState
from tests.board.conftest import key_of, spec_of, worker
from tests.board.invariants import PREFIX, check_board
from tests.support.valkey import calls_between, serve_valkey


@pytest.fixture
def own_valkey(tmp_path: Path) -> EmbeddedValkey:
    with serve_valkey(tmp_path / "valkey") as server:
        yield server


def restart(server: EmbeddedValkey) -> None:
    """Kill a server, its last second of log written, and start it on the same files and port."""
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("WAITAOF", 1, 0, 5000)
    server.kill()
    server.start()


def test_i1_a_killed_server_comes_back_with_jobs_leases_and_timers(own_valkey: EmbeddedValkey) -> None:
    with Board(own_valkey.url, "LSSTCam") as board:
        board.set_mode(WorkerMode.PREEMPTING)
        board.post(spec_of(1, range(4), gather_timeout_ms=60_000))
        job = board.claim(worker())
        board.complete(board.claim(worker("w1")), {"n": 1})
        before = board.state(key_of(1))
        restart(own_valkey)
        assert board.state(key_of(1)) == before
        assert board.status().mode is WorkerMode.PREEMPTING
        assert board.heartbeat("w0", job).held
        job = board.complete(job, {}, claim_next=True)
        while job is not None:
            job = board.complete(job, {}, claim_next=True)
        assert len(board.next_gather("g0", timeout_s=1).finished) == 4
        with redis.Redis.from_url(own_valkey.url) as client:
            check_board(client)


def test_a_waiting_worker_outlives_an_outage_and_gets_the_next_job(own_valkey: EmbeddedValkey) -> None:
    with ThreadPoolExecutor() as pool, Board(own_valkey.url, "LSSTCam") as waiting:
        claimed = pool.submit(waiting.claim, worker(), timeout_s=30)
        with Board(own_valkey.url, "LSSTCam") as board:
            board.events("0", timeout_s=10)  # it has joined
            restart(own_valkey)
            board.post(spec_of(1, [0]))
        assert claimed.result(timeout=15).batch == key_of(1)


def test_a_call_waits_for_a_server_that_is_away_and_then_says_so(own_valkey: EmbeddedValkey) -> None:
    with Board(own_valkey.url, "LSSTCam", outage_s=0.5) as board:
        board.post(spec_of(1, [0]))
        own_valkey.kill()
        with pytest.raises(StoreError, match="server"):
            board.post(spec_of(2, [0]))
    with Board(own_valkey.url, "LSSTCam", outage_s=20) as board, ThreadPoolExecutor() as pool:
        posted = pool.submit(board.post, spec_of(3, [0]))
        own_valkey.start()
        assert posted.result(timeout=20).created


def test_i2_a_server_that_comes_back_empty_is_given_its_functions_again(own_valkey: EmbeddedValkey) -> None:
    with Board(own_valkey.url, "LSSTCam") as board:
        board.post(spec_of(1, [0]))
        job = board.claim(worker())
        with redis.Redis.from_url(own_valkey.url) as client:
            client.flushall()
            client.function_flush()
        with pytest.raises(LeaseLostError):
            board.complete(job, {})
        assert board.post(spec_of(1, [0])).created
        assert board.claim(worker()).job_id == job.job_id


def test_another_version_of_the_functions_is_replaced_at_load(own_valkey: EmbeddedValkey) -> None:
    with Board(own_valkey.url, "LSSTCam") as board, redis.Redis.from_url(own_valkey.url) as client:
        old = "#!lua name=rapid_v1\nredis.register_function('rapid_v1_now', function() return 7 end)"
        client.function_load(old)
        assert board.now_ms() == 7
        board.load()
        assert board.now_ms() > 1_700_000_000_000


def test_two_servers_never_share_a_directory(own_valkey: EmbeddedValkey) -> None:
    own_valkey.kill()
    own_valkey.start()
    with pytest.raises(StoreError, match="another Valkey"):
        EmbeddedValkey(own_valkey.data_dir).start()


def test_a_server_that_outlived_its_owner_is_stopped_first(own_valkey: EmbeddedValkey) -> None:
    owner = own_valkey.data_dir / "owner"
    # As if the owner had been killed: no process has this id.
    owner.write_text(f"{2**22 + 1} 0.0 {own_valkey.pid}")
    with Board(own_valkey.url, "LSSTCam") as board:
        board.post(spec_of(1, [0]))
    with EmbeddedValkey(own_valkey.data_dir) as second, Board(second.url, "LSSTCam") as board:
        assert board.state(key_of(1)) is not None


@pytest.mark.parametrize("n_detectors", [1, 205])
def test_i6_a_fan_out_is_one_round_trip(
    make_board: Callable[..., Board], valkey: EmbeddedValkey, n_detectors: int
) -> None:
    board = make_board()
    for i in range(20):
        board.claim(worker(f"w{i}"))
    assert calls_between(valkey, lambda: board.post(spec_of(1, range(n_detectors)))) == ["FCALL rapid_v1_post"]


def test_i6_a_job_is_one_round_trip(board: Board, valkey: EmbeddedValkey) -> None:
    board.post(spec_of(1, range(205)))
    job = board.claim(worker())

    def run() -> None:
        following = job
        while following is not None:
            following = board.complete(following, {}, claim_next=True)

    assert calls_between(valkey, run) == ["FCALL rapid_v1_complete"] * 205


def wait_until_blocked(server: EmbeddedValkey, n: int) -> None:
    """Wait until n clients wait in a blocking command; the server tells that to nobody."""
    with redis.Redis.from_url(server.url) as client:
        for _ in range(3000):  # a client of the test before may wait for some seconds yet
            if client.info("clients")["blocked_clients"] == n:
                return
            threading.Event().wait(0.02)
    raise AssertionError("the clients did not wait")


def test_i6_who_waits_sends_nothing(make_board: Callable[..., Board], valkey: EmbeddedValkey) -> None:
    board = make_board()
    waiters = [make_board() for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(waiters[0].claim, worker("w0"), timeout_s=2)]
        futures += [pool.submit(waiters[1].next_gather, "g0", timeout_s=2)]
        futures += [pool.submit(waiters[2].keep_leases, timeout_s=2)]
        futures += [pool.submit(waiters[3].events, "$", timeout_s=2)]
        board.status()
        wait_until_blocked(valkey, 4)
        sent = calls_between(valkey, lambda: threading.Event().wait(1.2))
        for future in futures:
            future.result(timeout=10)
    assert sent == [], "a waiting role polls"


def test_i6_memory_is_bounded_and_nothing_outlives_its_batch(
    make_board: Callable[..., Board], valkey: EmbeddedValkey
) -> None:
    board = make_board()
    sizes = []
    with redis.Redis.from_url(valkey.url) as client:
        for seq_num in range(1, 241):
            board.post(spec_of(seq_num, range(5), ttl_ms=1_000_000))
            job = board.claim(worker())
            while job is not None:
                job = board.complete(job, {"n": 1}, claim_next=True)
            board.complete_gather(board.next_gather("g0", timeout_s=0))
            board.advance_clock(20_000)
            board.tick()
            sizes.append(client.dbsize())
        assert max(sizes[120:]) <= max(sizes[:120])
        board.advance_clock(1_000_001)
        while board.tick() == 0:
            pass
        left = {name.decode().removeprefix(PREFIX) for name in client.scan_iter()}
    assert not [name for name in left if keys.find_key(name).expiry == keys.BATCH_EXPIRY]
    assert board.recent() == []


def test_i8_one_head_leads_and_its_orders_are_fenced(make_board: Callable[..., Board]) -> None:
    first, second = make_board(), make_board()
    token, lasts_s = first.lead("h1", ttl_ms=5_000)
    assert token > 0
    assert lasts_s == 5
    assert second.lead("h2", ttl_ms=5_000)[0] == 0
    first.advance_clock(4_000)
    assert first.lead("h1", ttl_ms=5_000)[0] == token
    first.advance_clock(5_000)
    newer, _ = second.lead("h2", ttl_ms=5_000)
    assert newer > token
    assert first.lead("h1", ttl_ms=5_000)[0] == 0
    with pytest.raises(Exception, match="another head leads"):
        first.post(spec_of(1, [0]), lead_token=token)
    assert second.post(spec_of(1, [0]), lead_token=newer).created


def test_i8_a_standby_takes_over_at_once_when_the_leader_resigns(make_board: Callable[..., Board]) -> None:
    first, second = make_board(), make_board()
    token, _ = first.lead("h1", ttl_ms=60_000)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(second.wait_for_lead, 30)
        first.resign("h1", token)
        waiting.result(timeout=3)
    assert second.lead("h2", ttl_ms=60_000)[0] > token


async def test_the_asyncio_board_says_the_same(valkey: EmbeddedValkey, make_board: Callable[..., Board]) -> None:
    make_board()
    async with AsyncBoard(valkey.url, "LSSTCam", lease_ms=300) as board, AsyncBoard(valkey.url, "LSSTCam") as other:
        keeper = asyncio.create_task(board.lease_keeper())
        claim = asyncio.create_task(board.claim(worker(), timeout_s=10))
        gather = asyncio.create_task(other.next_gather("g0", timeout_s=10))
        await board.events("0", timeout_s=5)
        receipt = await other.post(spec_of(1, [0, 1]))
        assert receipt.queued == 2
        frozen = await asyncio.wait_for(claim, 5)
        # Its lease of 300 ms runs out; the keeper gives the job to whoever waits.
        job = await asyncio.wait_for(other.claim(worker("w1"), timeout_s=10), 5)
        done = {job.detector}
        following = await other.complete(job, {"n": 1}, claim_next=True)
        following = following or await asyncio.wait_for(other.claim(worker("w1"), timeout_s=10), 5)
        done.add(following.detector)
        await other.complete(following, {"n": 1})
        assert done == {0, 1}
        with pytest.raises(LeaseLostError):
            await board.complete(frozen, {})
        due = await asyncio.wait_for(gather, 5)
        assert await other.complete_gather(due) == 1
        assert (await other.state(key_of(1))).detectors[0].state is DetectorState.FINISHED
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def test_a_cancelled_claim_loses_no_job(valkey: EmbeddedValkey, make_board: Callable[..., Board]) -> None:
    head = make_board()
    async with AsyncBoard(valkey.url, "LSSTCam") as board:
        for seq_num in range(1, 6):
            claim = asyncio.create_task(board.claim(worker(), timeout_s=10))
            await asyncio.wait({claim}, timeout=0.05)
            post = asyncio.to_thread(head.post, spec_of(seq_num, [0]))
            claim.cancel()
            await asyncio.gather(claim, post, return_exceptions=True)
            job = await board.claim(worker(), timeout_s=5)
            assert (job.batch, job.attempt) == (key_of(seq_num), 1)
            await board.complete(job, {})
