"""A desk for requests on a real Valkey and a real results store; workers and gather are played by hand."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
import structlog

from rapid.arrival.models import RawHeader
from rapid.camera.models import Camera
from rapid.client import AsyncRapidClient
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec, WorkerSpec
from rapid.dispatch.valkey import EmbeddedValkey
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.gather.decide import summarise
from rapid.gather.role import event_data
from rapid.head.assemble import Exposures
from rapid.head.decide import info_facts
from rapid.head.requests import RequestDesk
from rapid.pipeline.store import default_book
from rapid.results.models import DetectorResult, Provenance
from rapid.results.store import ResultsStore, open_results
from tests.support.night import adopt_small_camera
from tests.support.valkey import flush, serve_valkey

DAY_OBS = 20261120
WHEN = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
WAIT_S = 30.0
PIPELINE = {
    "focus": "quicklook",
    "science": "quicklook",
    "cwfs": "donut",
    "bias": "bias",
    "flat": "flat",
    "dark": "dark",
}


def exposure(seq_num: int) -> int:
    return DAY_OBS * 100_000 + seq_num


class Stage:
    """A leading head's desk, and hands that do what the other roles do."""

    def __init__(self, camera: Camera, url: str, results: ResultsStore) -> None:
        self.camera = camera
        self.url = url
        self.results = results
        self.board = AsyncBoard(url, camera.name)
        self.client = AsyncRapidClient(url, camera.name, by="tester")
        self.exposures = Exposures()
        self.desk: RequestDesk | None = None
        self._running: asyncio.Task | None = None
        self.token = 0

    async def lead(self, head_id: str = "head-a", **settings) -> None:
        """Begin a lead, as a head that has just started does."""
        await self.board.load()
        self.token, _ = await self.board.lead(head_id, ttl_ms=600_000)
        assert self.token
        self.exposures = Exposures()
        self.desk = RequestDesk(
            self.camera, self.board, self.results, default_book(), self.exposures, lead_token=self.token, **settings
        )
        await self.desk.prepare()
        self._running = asyncio.create_task(self.desk.run())

    async def settle_in(self) -> None:
        """Let a fresh lead have seen all that is there."""
        await self.board.advance_clock(20_000)
        self.desk._open.wake.set()

    async def die(self) -> None:
        """End the desk as a kill does: nothing is said or written."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def close(self) -> None:
        if self._running is not None:
            await self.die()
        await self.client.close()
        await self.board.close()

    # What the camera, the head, workers and the gather do

    def info(self, seq_num: int, image_type: str = "science", **facts) -> ExposureInfo:
        detector = self.camera.detectors[0]
        return ExposureInfo(
            camera=self.camera.name,
            exposure_id=exposure(seq_num),
            obs_id=f"SC_O_{DAY_OBS}_{seq_num:06d}",
            controller="O",
            day_obs=DAY_OBS,
            seq_num=seq_num,
            detector=detector.id,
            detector_name=detector.name,
            image_type=ImageType(image_type),
            begin=datetime(2026, 11, 21, 3, seq_num % 60),  # noqa: DTZ001 - TAI has no zone
            **facts,
        )

    async def take(
        self, seq_num: int, image_type: str = "science", *, dispatch: bool = True, later=(), **facts
    ) -> None:
        """Let an exposure arrive, and be posted as the head does."""
        info = self.info(seq_num, image_type, **facts)
        for detector in self.camera.detectors:
            of_detector = info.model_copy(update={"detector": detector.id, "detector_name": detector.name})
            raw = RawHeader(uri=f"/raws/{seq_num}/{detector.name}.fits", info=of_detector)
            self.exposures.add(raw).read_out = frozenset(d.name for d in self.camera.detectors)
        if dispatch:
            raws = {d.id: f"/raws/{seq_num}/{d.name}.fits" for d in self.camera.detectors}
            await self.board.post(
                BatchSpec(
                    key=BatchKey(exposure_id=info.exposure_id, pipeline=PIPELINE[image_type]),
                    camera=self.camera.name,
                    image_type=image_type,
                    expected=self.camera.science_ids,
                    raws=raws,
                    superseded=dict.fromkeys(later, "not in pattern"),
                    info=info_facts(info),
                    gather_timeout_ms=600_000,
                    deadline_ms=900_000,
                ),
                lead_token=self.token,
            )
        self.desk.note(info.exposure_id)

    async def work(self, n_jobs: int | None = None, *, metrics=None, fail: dict[int, str] | None = None) -> list[str]:
        """Run jobs until none waits, or so many; then gather what is due. Returns the jobs' ids."""
        worker = WorkerSpec(worker_id="w1", pools=("science", "build", "wavefront"))
        done: list[str] = []
        while n_jobs is None or len(done) < n_jobs:
            job = await self.board.claim(worker, timeout_s=0.05)
            if job is None:
                break
            done.append(job.job_id)
            if fail and job.detector in fail:
                await self.board.fail(job, {"code": "payload_failed", "message": fail[job.detector], "retry": "never"})
                continue
            numbers = dict((metrics(job) if metrics else None) or {"psf_fwhm_arcsec": 0.8})
            self.results.put_result(self.result(job, numbers))
            await self.board.complete(job, numbers)
        await self.gather()
        return done

    def result(self, job, numbers) -> DetectorResult:
        return DetectorResult(
            run=job.batch.run,
            camera=job.camera,
            exposure=job.batch.exposure_id,
            day_obs=job.batch.exposure_id // 100_000,
            seq_num=job.batch.exposure_id % 100_000,
            detector=job.detector,
            detector_name=self.camera.by_id[job.detector].name,
            image_type=job.image_type,
            pipeline=job.batch.pipeline,
            metrics=numbers,
            provenance=Provenance(
                software_version="0", pipeline=job.batch.pipeline, pipeline_version="1", config_hash="0", payloads={},
                raw=job.raw_uri, raw_sha256="0", inputs=list(job.inputs),
            ),
            finished_at=datetime.now(UTC),
        )  # fmt: skip

    async def gather(self) -> None:
        while (gather := await self.board.next_gather("g1", timeout_s=0.05)) is not None:
            summary = summarise(gather, run=gather.batch.run)
            summary.gathered_at = datetime.now(UTC)
            self.results.put_summary(summary)
            await self.board.complete_gather(gather, event_data(summary))

    async def state_of(self, request, state: str):
        """Wait until a request is in a state; return its record."""
        async with asyncio.timeout(WAIT_S):
            async for change in request.follow(WAIT_S):
                if change.state.value == state:
                    return await request.record()
                assert not change.state.is_final, change
        raise AssertionError(f"never {state}")


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Keep the desk's log out of what commands print."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def client(valkey: EmbeddedValkey) -> Iterator[redis.Redis]:
    """No more than any script has: a bare Redis client."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as bare:
        yield bare


@pytest.fixture(scope="session")
def empty_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results store at the newest migration, to be copied: migrating takes a second each."""
    path = tmp_path_factory.mktemp("empty") / "results.sqlite"
    open_results(str(path)).close()
    return path


@pytest.fixture
async def stage(
    valkey: EmbeddedValkey, empty_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    flush(valkey)
    camera = adopt_small_camera(tmp_path, monkeypatch)
    shutil.copy(empty_results, tmp_path / "results.sqlite")
    results = open_results(str(tmp_path / "results.sqlite"))
    made = Stage(camera, valkey.url, results)
    try:
        await made.lead()
        yield made
    finally:
        await made.close()
        results.close()
