"""A real Valkey, and boards on it that are checked as they close."""

from collections.abc import Callable, Iterator

import pytest
import redis

from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, WorkerSpec
from rapid.dispatch.valkey import EmbeddedValkey
from tests.board.invariants import check_board
from tests.support.valkey import flush, serve_valkey

DAY = 20261120 * 100_000


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def make_board(valkey: EmbeddedValkey) -> Iterator[Callable[..., Board]]:
    """Make boards on an empty server, each as another process would."""
    flush(valkey)
    boards: list[Board] = []

    def make(**settings: object) -> Board:
        boards.append(Board(valkey.url, "LSSTCam", **settings))
        return boards[-1]

    yield make
    for board in boards:
        board.close()
    with redis.Redis.from_url(valkey.url) as client:
        check_board(client)


@pytest.fixture
def board(make_board: Callable[..., Board]) -> Board:
    return make_board()


def key_of(seq_num: int, pipeline: str = "quicklook") -> BatchKey:
    return BatchKey(exposure_id=DAY + seq_num, pipeline=pipeline)


def spec_of(seq_num: int, detectors: object = (0, 1, 2), *, arrived: object = None, **facts: object) -> BatchSpec:
    """Return a batch whose raws have all arrived, unless told which."""
    detectors = tuple(detectors)
    raws = {detector: f"/raws/{seq_num}/{detector}.fits" for detector in (detectors if arrived is None else arrived)}
    return BatchSpec(
        key=facts.pop("key", key_of(seq_num)),
        camera="LSSTCam",
        image_type="science",
        expected=frozenset(detectors),
        raws=raws,
        **facts,
    )


def worker(name: str = "w0", **facts: object) -> WorkerSpec:
    return WorkerSpec(worker_id=name, **facts)
