"""The bookkeeping of a night sees what is wrong: a small night in order, and then one thing out of order."""

import io
from pathlib import Path

import numpy as np
import pytest
import redis
from astropy.io import fits

from rapid.dispatch.board import Board
from rapid.dispatch.keys import prefix
from rapid.dispatch.models import BatchKey, BatchSpec, WorkerSpec
from rapid.products.directory import DirectoryStore
from rapid.results.models import DetectorState, DetectorStatus
from rapid.results.store import open_results
from replay.delivered import Delivered, Delivery
from replay.invariants import NAMED_WITHIN_S, Accountant, Interruption
from tests.support.records import WHEN, make_result, make_summary
from tests.support.valkey import serve_valkey

EXPOSURE = 2026112000001
SHA = "1" * 64
"""Checksum of the raw in the provenance of `make_result`."""


class SmallNight:
    """One exposure of two detectors, done and summarised."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.products = DirectoryStore(folder / "products")
        self.results = open_results(str(folder / "results.sqlite"))
        self.board = Board(url, "LSSTCam")
        raws = {n: Delivery(f"/raws/{n}.fits", SHA, is_whole=True) for n in (0, 1)}
        self.delivered = Delivered({EXPOSURE: raws})
        self.accountant = Accountant("LSSTCam", self.delivered, self.results, self.products, self.board)
        key = BatchKey(exposure_id=EXPOSURE, pipeline="quicklook")
        self.board.post(
            BatchSpec(
                key=key,
                camera="LSSTCam",
                image_type="science",
                expected=frozenset({0, 1}),
                raws={n: f"/raws/{n}.fits" for n in (0, 1)},
            )
        )
        for _ in range(2):
            job = self.board.claim(WorkerSpec(worker_id="w"), timeout_s=5.0)
            assert job is not None
            self.keep_result(job.detector)
            self.board.complete(job, {})
        gather = self.board.next_gather("g", timeout_s=5.0)
        assert gather is not None
        self.keep_summary(version=1)
        self.board.complete_gather(gather, {})

    def keep_result(self, detector: int) -> None:
        key = f"{detector}.binned.fits"
        hdu = fits.PrimaryHDU(np.ones((4, 4), np.float32))
        hdu.header["RAWSHA"] = SHA
        buffer = io.BytesIO()
        hdu.writeto(buffer)
        self.products.put(key, buffer.getvalue())
        self.results.put_result(make_result(1, detector, products={"binned": key}))

    def keep_summary(self, *, version: int, n: int = 2) -> None:
        detectors = {k: DetectorStatus(state=DetectorState.FINISHED) for k in range(n)}
        self.results.put_summary(make_summary(1, version, detectors=detectors, n_finished=n, n_expected=n))

    def problems(self) -> list[str]:
        books = self.accountant
        return [
            *books.unsettled(),
            *books.unaccounted(),
            *books.wrong_batches(),
            *books.wrong_summaries(),
            *books.wrong_products(),
        ]


def put_failure(night: SmallNight) -> None:
    night.results.put_failure(
        job_id=f"prompt.{EXPOSURE}.quicklook.000",
        camera="LSSTCam",
        exposure=EXPOSURE,
        detector=0,
        pipeline="quicklook",
        attempts=3,
        error={"code": "lease_expired"},
        failed_at=WHEN,
    )


def lose_raw(night: SmallNight) -> None:
    night.delivered.raws[EXPOSURE][2] = Delivery("/raws/2.fits", SHA, is_whole=True)


def change_raw(night: SmallNight) -> None:
    night.delivered.raws[EXPOSURE][1] = Delivery("/raws/1.fits", "2" * 64, is_whole=True)


def truncate_raw(night: SmallNight) -> None:
    night.delivered.raws[EXPOSURE][1] = Delivery("/raws/1.fits", SHA, is_whole=False)


def expect_more(night: SmallNight) -> None:
    night.delivered.raws[EXPOSURE][2] = Delivery("/raws/2.fits", SHA, is_whole=True)
    night.board.expect(BatchKey(exposure_id=EXPOSURE, pipeline="quicklook"), [0, 1, 2])


def leave_half_a_file(night: SmallNight) -> None:
    (night.products.root / ".put-abc").write_bytes(b"half")


def cut_a_product(night: SmallNight) -> None:
    path = night.products.root / "1.binned.fits"
    path.write_bytes(path.read_bytes()[:2900])


def lose_a_product(night: SmallNight) -> None:
    night.products.delete("1.binned.fits")


def leave_a_stray_file(night: SmallNight) -> None:
    night.products.put("9.binned.fits", b"nobody's")


def draw_a_plot(night: SmallNight) -> None:
    night.products.put("psf_map.v1.json", b"{}")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def night(url, tmp_path):
    with redis.Redis.from_url(url) as client:
        client.flushall()
    small = SmallNight(tmp_path, url)
    yield small
    small.board.close()
    small.results.close()


def test_a_night_in_order_has_no_problems(night):
    assert night.problems() == []


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        pytest.param(lose_raw, "nothing became of detectors [2]", id="a raw that nothing became of"),
        pytest.param(put_failure, "['finished', 'failed']", id="a raw with two fates"),
        pytest.param(put_failure, "0 dead letters, but not as many failures", id="a failure the board does not know"),
        pytest.param(truncate_raw, "delivered truncated: ['finished']", id="a result of a raw that was cut off"),
        pytest.param(change_raw, "result of another raw", id="a result of another raw"),
        pytest.param(expect_more, "waits for detectors [2]", id="a detector that is not settled"),
        pytest.param(lambda n: n.keep_summary(version=3), "versions [1, 3]", id="a version that was left out"),
        pytest.param(lambda n: n.keep_summary(version=2, n=1), "detectors vanished", id="a summary that shrank"),
        pytest.param(lambda n: n.results.put_result(make_result(1, 2)), "never came: [2]", id="a result of nothing"),
        pytest.param(lambda n: n.keep_result(2), "differ about detectors [2]", id="a result the board does not count"),
        pytest.param(cut_a_product, "1.binned.fits cannot be read", id="a product cut off"),
        pytest.param(lose_a_product, "1.binned.fits cannot be read", id="a product that is gone"),
        pytest.param(leave_half_a_file, "half-written", id="a file half-written"),
        pytest.param(leave_a_stray_file, "belongs to no result", id="a product of no result"),
        pytest.param(draw_a_plot, "no gather ended while it was made", id="a plot that no row names"),
    ],
)
def test_what_is_out_of_order_is_a_problem(night, harm, complaint):
    harm(night)
    assert any(complaint in problem for problem in night.problems()), night.problems()


@pytest.mark.parametrize(
    ("since_s", "is_excused"),
    [
        pytest.param(0.0, True, id="a gather ended after it was written"),
        pytest.param(-5.0, False, id="a gather ended before it was written"),
        pytest.param(10 * NAMED_WITHIN_S, False, id="a gather ended long after"),
    ],
)
def test_a_plot_without_a_row_is_excused_by_the_end_of_its_gather_alone(night, since_s, is_excused):
    draw_a_plot(night)
    at_s = (night.products.root / "psf_map.v1.json").stat().st_mtime + since_s
    night.accountant = Accountant(
        "LSSTCam",
        night.delivered,
        night.results,
        night.products,
        night.board,
        interruptions=[Interruption(at_s, at_s)],
    )
    assert (night.problems() == []) is is_excused


def test_what_a_power_cut_took_from_the_count_is_excused_and_what_is_counted_twice_is_not(night):
    assert list(night.accountant.wrong_batches(may_forget=True)) == []
    with redis.Redis.from_url(night.url) as client:
        client.hincrby(f"{prefix('LSSTCam')}counters", "finished", -1)
        assert list(night.accountant.wrong_batches(may_forget=True)) == []
        assert list(night.accountant.wrong_batches()) == ["1 completions were counted, 2 detectors are finished"]
        client.hincrby(f"{prefix('LSSTCam')}counters", "finished", 2)
    assert list(night.accountant.wrong_batches(may_forget=True)) == [
        "3 completions were counted, 2 detectors are finished"
    ]


def test_what_the_board_has_forgotten_is_asked_of_the_results_store(night):
    forgetful = Accountant("LSSTCam", night.delivered, night.results, night.products, night.board, memory_s=60.0)
    assert list(forgetful.wrong_batches()) == []
    night.board.advance_clock(7 * 86_400_000)
    night.board.tick()
    assert night.board.recent(9) == []
    assert f"exposure {EXPOSURE} is not on the board" in list(night.accountant.unsettled())
    assert list(night.accountant.wrong_batches()) == ["2 completions were counted, 0 detectors are finished"]
    assert list(forgetful.unsettled()) == []
    assert list(forgetful.wrong_batches()) == []
    with redis.Redis.from_url(night.url) as client:
        client.hincrby(f"{prefix('LSSTCam')}counters", "finished", 1)
    assert list(forgetful.wrong_batches()) == ["3 completions were counted, 2 detectors are finished"]


def test_what_is_being_drawn_is_not_asked_for_its_row_yet(night):
    draw_a_plot(night)
    written_s = (night.products.root / "psf_map.v1.json").stat().st_mtime
    assert night.accountant.unnamed_plots(until_s=written_s) == []
    assert night.accountant.unnamed_plots(until_s=written_s + 1) == ["psf_map.v1.json"]
    assert list(night.accountant.wrong_products(until_s=written_s)) == []
