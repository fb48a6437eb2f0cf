"""A real Valkey, and the control state of cameras on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.control.store import ControlStore
from rapid.dispatch.board import Board
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.pipeline.store import default_book
from rapid.results.store import ResultsStore, open_results
from tests.support.valkey import flush, serve_valkey


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def camera() -> Camera:
    return load_camera("LSSTCam")


@pytest.fixture
def client(valkey: EmbeddedValkey) -> Iterator[redis.Redis]:
    """A plain client of an empty server."""
    flush(valkey)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def board(valkey: EmbeddedValkey, client: redis.Redis) -> Iterator[Board]:
    with Board(valkey.url, "LSSTCam") as board:
        yield board


@pytest.fixture
def make_store(board: Board, camera: Camera) -> Callable[..., ControlStore]:
    def make(at: Board = board) -> ControlStore:
        return ControlStore(at.connection, camera, default_book())

    return make


@pytest.fixture
def store(make_store: Callable[..., ControlStore]) -> ControlStore:
    return make_store()


@pytest.fixture
def results(tmp_path: Path) -> Iterator[ResultsStore]:
    results = open_results(str(tmp_path / "results.sqlite"))
    yield results
    results.close()
