"""Afterburners of runs other than the night's own: campaigns and requests get the same steps after the summary."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rapid.client import RequestNotDoneError
from rapid.dispatch.models import BatchKey, EventKind, WorkerSpec
from rapid.gather.afterburner import add_afterburner, summary_of_base
from rapid.gather.decide import summarise
from rapid.gather.role import event_data
from rapid.head.afterburners import Afterburners
from rapid.pipeline.models import base_of
from rapid.pipeline.store import default_book
from rapid.products.directory import DirectoryStore
from tests.requests.conftest import DAY_OBS, WAIT_S, exposure

SITE = """
pipelines:
  - name: quicklook
    version: "1"
    description: The quick look, and how the light is spread once there is time.
    steps: [{payload: isr}, {payload: quality}]
    afterburner: [{payload: encircled_energy}]
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "site.yaml").write_text(SITE)
    monkeypatch.setenv("RAPID_PIPELINE_PATH", str(folder))
    return folder / "site.yaml"


class Head:
    """The part of a leading head that posts afterburners, and hands that work on what it posts."""

    def __init__(self, stage, products: DirectoryStore) -> None:
        self.stage = stage
        self.products = products
        self.jobs: list = []
        self._task: asyncio.Task | None = None

    async def start(self, **settings) -> None:
        last = await self.stage.board.last_event_id()
        posts = Afterburners(
            self.stage.camera, self.stage.board, self.stage.results, default_book(), lead_token=self.stage.token,
            **settings,
        )  # fmt: skip
        self._task = asyncio.create_task(posts.run())
        self._last = last

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def work(self, n_jobs: int | None = None) -> list[str]:
        """Run what waits; gather what is due. Return the jobs' ids."""
        board, results = self.stage.board, self.stage.results
        done: list[str] = []
        while n_jobs is None or len(done) < n_jobs:
            job = await board.claim(WorkerSpec(worker_id="w1", pools=("science",)), timeout_s=0.05)
            if job is None:
                break
            done.append(job.job_id)
            self.jobs.append(job)
            base = base_of(job.batch.pipeline)
            result = self.stage.result(job, {"ee80_radius_arcsec": 1.0} if base else {"psf_fwhm_arcsec": 0.8})
            if base:
                results.join_result(result, pipeline=base)
            else:
                results.put_result(result)
            await board.complete(job, dict(result.metrics))
        await self.gather()
        return done

    async def gather(self) -> None:
        board, results = self.stage.board, self.stage.results
        while (gather := await board.next_gather("g1", timeout_s=0.05)) is not None:
            base = base_of(gather.batch.pipeline)
            summary = summarise(gather, run=gather.batch.run)
            if base is None:
                summary.gathered_at = datetime.now(UTC)
                results.put_summary(summary)
            else:
                stored = summary_of_base(gather.batch, base, gather.camera, results)
                add_afterburner(stored, results, self.products)
            await board.complete_gather(gather, event_data(summary))

    async def until_posted(self, n: int, *, pipeline: str = "quicklook_after") -> list[str]:
        """Wait until so many batches of the afterburner were posted since the start; return their ids."""
        found: list[str] = []
        last = self._last
        async with asyncio.timeout(WAIT_S):
            while len(found) < n:
                for event in await self.stage.board.events(last, timeout_s=5.0):
                    last = event.event_id
                    if event.kind is EventKind.EXPOSURE_POSTED and BatchKey.parse(event.batch_id).pipeline == pipeline:
                        found.append(event.batch_id)
        return found


@pytest.fixture
async def head(stage, tmp_path) -> AsyncIterator[Head]:
    made = Head(stage, DirectoryStore(tmp_path / "products"))
    yield made
    await made.stop()


async def campaign(stage, run: str = "v2", *, n: int = 1, pipeline: str = "quicklook", config=None, **select):
    fields = {"pipeline": pipeline, "config": config or {}}
    return await stage.client.request(select={"campaign": {"nights": [DAY_OBS], **select}}, run=run, **fields)


async def a_night(stage, head: Head, n: int) -> None:
    for seq_num in range(1, n + 1):
        await stage.take(seq_num)
    assert len(await head.work()) == 9 * n


def summary_of(stage, seq_num: int, run: str = "v2"):
    return stage.results.latest_summary(stage.camera.name, exposure(seq_num), pipeline="quicklook", run=run)


async def test_a_campaign_gets_the_steps_after_the_summary_under_its_settings(stage, head):
    await a_night(stage, head, 1)
    config = {"isr": {"flat": False}, "quality": {"n_max_stars": 50}, "encircled_energy": {"n_max_stars": 7}}
    request = await campaign(stage, config=config)
    await stage.state_of(request, "running")
    await head.start()
    await head.work()
    assert (await request.wait(WAIT_S)).is_complete
    posted = await head.until_posted(2)
    assert set(posted) == {f"{run}.{exposure(1)}.quicklook_after" for run in ("prompt", "v2")}
    await head.work()
    of_run = [job for job in head.jobs if job.batch.id == f"v2.{exposure(1)}.quicklook_after"]
    assert len(of_run) == 9
    assert all(job.config == {"isr": {"flat": False}, "encircled_energy": {"n_max_stars": 7}} for job in of_run)
    own = [job for job in head.jobs if job.batch.id == f"prompt.{exposure(1)}.quicklook_after"]
    assert all(not job.config for job in own), "a campaign's settings are its own"
    for run in ("prompt", "v2"):
        assert summary_of(stage, 1, run).n_afterburned == 9
        assert summary_of(stage, 1, run).metrics["ee80_radius_arcsec_median"] == 1.0


async def test_the_night_comes_before_what_follows_a_campaign(stage, head):
    await a_night(stage, head, 1)
    request = await campaign(stage)
    await stage.state_of(request, "running")
    await head.start()
    await head.work()
    await head.until_posted(2)
    await stage.take(5)
    done = await head.work()
    # One that was handed to a worker before the exposure came is not taken back.
    assert [job.split(".")[1] for job in done[:10]].count(str(exposure(5))) == 9


async def test_an_afterburner_that_is_about_the_night_alone_follows_no_campaign(stage, head, site):
    site.write_text(SITE + "    after_runs: night\n")
    from rapid.pipeline.store import _book_of

    _book_of.cache_clear()
    await stage.die()
    await stage.lead()
    await a_night(stage, head, 1)
    with pytest.raises(RequestNotDoneError, match="no such payload") as refused:
        await (await campaign(stage, "v3", config={"encircled_energy": {"n_max_stars": 7}})).wait(WAIT_S)
    assert refused.value.record.error.field == "config.encircled_energy"
    request = await campaign(stage)
    await stage.state_of(request, "running")
    await head.start()
    await head.work()
    await request.wait(WAIT_S)
    assert await head.until_posted(1) == [f"prompt.{exposure(1)}.quicklook_after"]
    await stage.take(2)
    await head.work()
    # What is told of in order: the night's second exposure comes after all that the campaign had to say.
    assert await head.until_posted(2) == [f"prompt.{exposure(n)}.quicklook_after" for n in (1, 2)]
    assert summary_of(stage, 1).n_afterburned == 0
    _book_of.cache_clear()


async def test_the_afterburner_is_not_asked_for_by_name(stage):
    with pytest.raises(RequestNotDoneError, match="runs by itself, after quicklook") as refused:
        await (await campaign(stage, pipeline="quicklook_after")).wait(WAIT_S)
    assert refused.value.record.error.field == "pipeline"


async def test_the_next_head_finds_what_a_campaign_lacks_and_few_are_on_the_board(stage, head):
    await a_night(stage, head, 3)
    request = await campaign(stage)
    await stage.state_of(request, "running")
    await head.work()
    await request.wait(WAIT_S)
    for seq_num in (1, 2, 3):  # the night's own are done already
        summary = summary_of(stage, seq_num, "prompt")
        stage.results.put_summary(summary.model_copy(update={"n_afterburned": 9}))
    await head.start(max_under_way=1)
    assert await head.until_posted(1) == [f"v2.{exposure(3)}.quicklook_after"]
    assert {job.split(".")[1] for job in await head.work()} == {str(exposure(3))}
    assert await head.until_posted(2) == [f"v2.{exposure(n)}.quicklook_after" for n in (3, 2)]
    await head.work()
    await head.until_posted(3)
    await head.work()
    assert [summary_of(stage, n).n_afterburned for n in (1, 2, 3)] == [9, 9, 9]


async def test_a_campaign_that_is_called_off_takes_its_afterburners_along_and_one_that_goes_on_gets_them(stage, head):
    await a_night(stage, head, 2)
    request = await campaign(stage, exposures=[exposure(2)])
    await stage.state_of(request, "running")
    await head.work()
    await request.wait(WAIT_S)
    other = await campaign(stage, "v3")
    await stage.state_of(other, "running")
    await head.work(9)  # one exposure of it
    await head.start(max_under_way=5)
    assert f"v3.{exposure(2)}.quicklook_after" in await head.until_posted(4)
    key = BatchKey.parse(f"v3.{exposure(2)}.quicklook_after")
    last = await stage.board.last_event_id()
    await other.cancel()
    async with asyncio.timeout(WAIT_S):
        while not all("called off" in (s.reason or "") for s in (await stage.board.state(key)).detectors.values()):
            for event in await stage.board.events(last, timeout_s=0.2):
                last = event.event_id
    done = await head.work()
    assert not [job for job in done if job.startswith("v3.")]
    assert [job for job in done if job.startswith("v2.")], "another campaign's go on"
    assert summary_of(stage, 2, "v3").n_afterburned == 0
    again = await campaign(stage, "v3", resume=True)
    async with asyncio.timeout(WAIT_S):
        while not (await again.record()).state.is_final or summary_of(stage, 2, "v3").n_afterburned < 9:
            await head.work()
    assert summary_of(stage, 2, "v3").n_afterburned == 9


async def test_what_is_done_again_in_a_campaign_gets_its_afterburner_again(stage, head):
    await a_night(stage, head, 1)
    request = await campaign(stage)
    await stage.state_of(request, "running")
    await head.start()
    await head.work()
    await request.wait(WAIT_S)
    await head.until_posted(2)
    await head.work()
    assert summary_of(stage, 1).n_afterburned == 9
    summary = summary_of(stage, 1)
    (old,) = stage.results.results(exposure(1), run="v2", pipeline="quicklook", detector=94)
    bare = old.model_copy(
        update={
            "provenance": old.provenance.model_copy(update={"afterburner": None, "calibs": {"flat": "another"}}),
            "metrics": {"psf_fwhm_arcsec": 0.9},
        }
    )
    stage.results.put_result(bare)
    key = BatchKey.parse(f"v2.{exposure(1)}.quicklook")
    stage.results.put_summary(summary.model_copy(update={"version": 2, "n_afterburned": 8}))
    await stage.board.publish(EventKind.SUMMARY_READY, batch=key, data={"version": 2})
    async with asyncio.timeout(WAIT_S):
        while not (done := await head.work()):
            pass
    assert done == [f"v2.{exposure(1)}.quicklook_after.094"]
    (new,) = stage.results.results(exposure(1), run="v2", pipeline="quicklook", detector=94)
    assert new.provenance.afterburner is not None
    assert summary_of(stage, 1).n_afterburned == 9
