"""An ingest process with a real Butler repository and a real board."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rapid.arrival.decide import Patience
from rapid.arrival.directory import DirectorySource
from rapid.butler.repository import RepositorySettings, open_repository
from rapid.camera.store import load_camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.ingest import store
from rapid.ingest.decide import RetryPolicy
from rapid.ingest.desk import IngestDesk
from rapid.ingest.models import IngestedMessage
from rapid.ingest.role import Batching, Ingester
from tests.support.raws import make_raw, raw_name
from tests.support.valkey import flush, serve_valkey

CAMERA = load_camera("LSSTCam")
RUN = "LSSTCam/raw/all"
NAMES = [detector.name for detector in CAMERA.detectors if detector.purpose.value == "SCIENCE"]
WAIT_S = 60.0
QUICK = RetryPolicy(max_attempts=3, pause_s=0.02, pause_max_s=0.1)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[EmbeddedValkey]:
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def valkey(server) -> EmbeddedValkey:
    flush(server)
    return server


def write_raw(folder: Path, seq_num: int, detector_name: str, *, width: int = 50) -> Path:
    """Write a raw as the camera does: under another name first."""
    path = folder / raw_name(seq_num, detector_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(make_raw(seq_num, *detector_name.split("_"), width=width))
    temporary.rename(path)
    return path


def exposure_id(seq_num: int) -> int:
    return 2026112000000 + seq_num


def make_desk(repo: Path, **options: Any) -> IngestDesk:
    where = RepositorySettings(str(repo))
    return IngestDesk(CAMERA, lambda: open_repository(where, CAMERA), run=RUN, **options)


def raws_in(repo: Path, dataset_type: str = "raw", collections: str = RUN) -> dict[tuple[int, int], Any]:
    """Return the references of raws in a repository, read by a plain client."""
    from lsst.daf.butler import Butler

    with Butler.from_config(str(repo)) as butler:
        refs = butler.query_datasets(dataset_type, collections=collections, explain=False, limit=None)
    return {(ref.dataId["exposure"], ref.dataId["detector"]): ref for ref in refs}


@dataclass
class Process:
    """An ingest role that runs in the test's loop."""

    ingester: Ingester
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(WAIT_S):
            await self.task


@dataclass
class Stage:
    """A folder of raws, a repository, a board, and ingest processes."""

    url: str
    raws: Path
    repo: Path
    board: AsyncBoard
    processes: list[Process] = field(default_factory=list)

    async def start(self, name: str = "ingest.test", *, desk: IngestDesk | None = None, **options: Any) -> Process:
        source = DirectorySource(self.raws, camera=CAMERA, patience=Patience(0.1, 0.3, 1.0), sweep_s=1.0)
        options.setdefault("sources", (source,))
        ingester = Ingester(
            name,
            CAMERA,
            self.board,
            desk or make_desk(self.repo),
            repository=str(self.repo),
            policy=options.pop("policy", QUICK),
            batching=options.pop("batching", Batching(limit=100, linger_s=0.02)),
            **options,
        )
        stop = asyncio.Event()
        process = Process(ingester, stop, asyncio.create_task(ingester.run(stop)))
        self.processes.append(process)
        return process

    async def wait_until(self, is_so: Callable[[], Any], what: str) -> Any:
        """Wait for something on the board to become true: looked at after each change of a process's status."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while True:
            assert asyncio.get_running_loop().time() < deadline, f"in {WAIT_S} s not: {what}"
            found = is_so()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            for process in self.processes:
                if process.task.done():
                    process.task.result()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asyncio.Event().wait()

    async def told(self, seq_num: int, n: int, *, kind: str = "raw") -> frozenset[int]:
        """Wait until so many detectors of an exposure were told to be in."""

        async def enough() -> frozenset[int]:
            told = await self.board.connection.run(store.get_told(self.board.prefix, exposure_id(seq_num), kind))
            return told if len(told) >= n else frozenset()

        return await self.wait_until(enough, f"{n} of exposure {seq_num}")

    async def aside(self, n: int) -> list[Any]:
        """Wait until so many files are set aside."""

        async def enough() -> list[Any]:
            records = await self.board.connection.run(store.get_set_aside(self.board.prefix))
            return records if len(records) >= n else []

        return await self.wait_until(enough, f"{n} set aside")

    async def messages(self) -> list[IngestedMessage]:
        """Return everything that was told so far."""
        found = await self.board.connection.run(store.follow_ingested(self.board.prefix, "0-0", timeout_s=0.01))
        return [message for _, message in found]


@pytest.fixture(scope="session")
def blank_repo(tmp_path_factory) -> Path:
    """A repository that knows the camera: copied, as making one takes seconds."""
    root = tmp_path_factory.mktemp("butler") / "repo"
    open_repository(RepositorySettings(str(root)), CAMERA).close()
    return root


@pytest.fixture
async def stage(valkey, tmp_path, blank_repo):
    shutil.copytree(blank_repo, tmp_path / "repo")
    board = AsyncBoard(valkey.url, "LSSTCam")
    found = Stage(valkey.url, tmp_path / "raws", tmp_path / "repo", board)
    yield found
    for process in found.processes:
        process.stop.set()
    results = await asyncio.gather(*(process.task for process in found.processes), return_exceptions=True)
    await board.close()
    assert [one for one in results if isinstance(one, Exception)] == []
