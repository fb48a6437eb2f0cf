"""The board's clock runs at the rate of the night that is played: all that waits on it goes along."""

import threading

import pytest
import redis

from rapid.dispatch.board import AsyncBoard, Board
from rapid.dispatch.models import EventKind
from rapid.errors import ConfigurationError
from rapid.head.choice import Chooser, Waits
from rapid.pipeline.store import default_book
from rapid.results.models import GatherReason
from tests.board.conftest import key_of, spec_of, worker
from tests.unit.head.test_choice import LSSTCAM, Control, info

RATES = [pytest.param(1.0, id="at its own pace"), pytest.param(10.0, id="ten times as fast")]


def pass_time(seconds: float, board: Board) -> None:
    """Let so many seconds of the board's clock pass."""
    threading.Event().wait(seconds / board.time().rate)


def server_ms(valkey) -> int:
    with redis.Redis.from_url(valkey.url) as client:
        seconds, microseconds = client.time()
    return seconds * 1000 + microseconds // 1000


@pytest.mark.parametrize("rate", [0.5, 10.0, 60.0])
def test_the_clock_runs_as_fast_as_it_is_told(board, valkey, rate):
    board.set_clock_rate(rate)
    assert board.time().rate == rate
    outside = server_ms(valkey)
    begin = board.now_ms()
    inside = server_ms(valkey)
    threading.Event().wait(0.1)
    shortest = server_ms(valkey) - inside
    end = board.now_ms()
    longest = server_ms(valkey) - outside
    assert shortest * rate - 2 <= end - begin <= longest * rate + 2 * rate


def test_a_clock_that_changes_its_rate_makes_no_jump(board):
    board.advance_clock(3_600_000)
    times = []
    for rate in (10.0, 1.0, 0.0, 5.0, 1.0):
        times += [board.now_ms(), board.set_clock_rate(rate)]
    times.append(board.now_ms())
    assert times == sorted(times)
    assert times[-1] - times[0] < 3_600_000


def test_a_clock_that_stands_goes_on_where_it_stood(board):
    stood = board.set_clock_rate(0)
    threading.Event().wait(0.05)
    assert board.now_ms() == stood
    assert board.time().rate == 0
    assert board.advance_clock(5_000) == stood + 5_000
    assert board.set_clock_rate(1) >= stood + 5_000
    assert board.now_ms() - stood < 60_000


@pytest.mark.parametrize("rate", [-1.0, 1e9, float("nan")])
def test_a_rate_that_no_clock_can_have_is_refused(board, rate):
    with pytest.raises(ConfigurationError, match="rate"):
        board.set_clock_rate(rate)


def test_a_lease_lasts_for_its_process_as_long_as_the_rate_says_but_never_too_short_for_it(make_board):
    board = make_board(lease_ms=40_000)
    board.post(spec_of(1, range(2)))
    assert board.claim(worker("w0"), timeout_s=5).lease_ms == 40_000
    board.set_clock_rate(10)
    job = board.claim(worker("w1"), timeout_s=5)
    assert job.lease_ms == 4_000
    board.set_clock_rate(100)
    assert board.heartbeat("w1", job).lease_ms == 1_500


def test_a_process_that_was_told_of_a_long_lease_keeps_it_when_the_clock_goes_faster(make_board):
    board = make_board(lease_ms=30_000)
    token, _ = board.lead("h0", ttl_ms=30_000)
    board.post(spec_of(1, [0]))
    job = board.claim(worker(), timeout_s=5)
    board.set_clock_rate(100)  # on the new clock the old lease would be over after 300 ms
    threading.Event().wait(0.4)
    board.tick()
    assert board.heartbeat("w0", job).held
    assert board.lead("h0", ttl_ms=30_000)[0] == token


def test_a_silent_worker_loses_its_job_sooner_on_a_faster_clock(make_board):
    board = make_board(lease_ms=60_000)
    board.set_clock_rate(40)
    board.post(spec_of(1, [0]))
    board.claim(worker("w0"), timeout_s=5)
    last = board.last_event_id()
    keeper = threading.Thread(target=lambda: board.keep_leases(timeout_s=10))
    keeper.start()
    kinds = []
    while EventKind.JOB_RETURNED not in kinds:
        events = board.events(last, timeout_s=20)
        assert events, "the lease outlives its time"
        last = events[-1].event_id
        kinds += [event.kind for event in events]
    keeper.join()


def decisions(board: Board, rate: float) -> list[tuple]:
    """Return what the board decides about an exposure whose detectors come late."""
    board.set_clock_rate(rate)
    board.post(spec_of(1, range(3), arrived=[0, 1], gather_timeout_ms=1_500, regather_timeout_ms=3_000))
    jobs = [board.claim(worker(f"w{n}"), timeout_s=5) for n in range(2)]
    board.complete(jobs[0], {})
    made = []
    while len(made) < 2:
        gather = board.next_gather("g0", timeout_s=30)
        assert gather is not None
        board.complete_gather(gather, {})
        made.append((gather.reason, gather.version, len(gather.finished)))
        if gather.reason is GatherReason.TIMEOUT:
            assert gather.due_ms - gather.first_result_ms == 1_500
            board.complete(jobs[1], {})
    return made


@pytest.mark.parametrize("rate", RATES)
def test_gathers_are_decided_alike_at_every_rate(make_board, rate):
    board = make_board(lease_ms=300_000)
    assert decisions(board, rate) == [(GatherReason.TIMEOUT, 1, 1), (GatherReason.REGATHER, 2, 2)]


async def shed_levels(
    board: Board, valkey, *, rate: float, job_s: float, expected: frozenset[int] | None = None
) -> list[int]:
    """Return the levels of exposures 0.8 s apart, with one worker that takes so long for a job."""
    board.set_clock_rate(rate)
    control = Control(shedding={"ladder": ["ccd_checkerboard"]})
    async with AsyncBoard(valkey.url, "LSSTCam") as other:
        chooser = Chooser(LSSTCAM, other, default_book(), control, Waits())
        levels = []
        for seq_num in range(1, 5):
            choice = await chooser.choose(info(seq_num), {}, excluded={}, expected=expected)
            levels.append(choice.control["shed_level"])
            board.post(spec_of(seq_num, [0]))
            job = board.claim(worker(), timeout_s=5)
            pass_time(job_s, board)
            board.complete(job, {}, claim_next=False)
            pass_time(0.8 - job_s, board)
    return levels


@pytest.mark.parametrize("rate", RATES)
async def test_load_is_shed_alike_at_every_rate(board, valkey, rate):
    # 189 detectors of half a second each cannot be done by one worker in 0.8 s, at any rate; nothing is known of the
    # cadence before the third exposure.
    assert await shed_levels(board, valkey, rate=rate, job_s=0.5) == [0, 0, 1, 1]


async def test_what_is_not_read_out_is_no_reason_to_shed(board, valkey):
    few = frozenset({0, 1})  # as the camera said before the first raw
    assert await shed_levels(board, valkey, rate=1.0, job_s=0.2, expected=few) == [0, 0, 0, 0]


def test_the_board_forgets_nothing_of_its_clock_rate_when_a_job_is_posted(board):
    board.set_clock_rate(10)
    board.post(spec_of(1, [0]))
    assert board.state(key_of(1)).posted_ms <= board.now_ms()
    assert board.time().rate == 10
