"""One small exposure that was really processed: raws, results, mosaics, plots, for pages that show pixels."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchSpec
from rapid.exposure.reader import read_info
from rapid.gather.metrics import GatherMetrics
from rapid.gather.role import Gatherer
from rapid.gather.studio_child import Artist
from rapid.gather.studio_models import NightTask, PlotTask
from rapid.results.models import ExposureSummary
from rapid.worker.child import ChildWorker
from rapid.worker.messages import ChildSettings
from tests.display.stage import WAIT_S, Stage
from tests.support.night import make_plan, take_all


class RealExposure:
    """Takes, processes and gathers one exposure of the small camera."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.camera: Camera = stage.camera
        plan = make_plan(
            [{"kind": "science", "n": 1, "physical_filter": "r_57", "seeing_arcsec": 3.0}], stars_per_detector=80
        )
        (self.exposure_id,) = take_all(plan, folder / "raws")
        self.raws = {}
        for path in sorted((folder / "raws").rglob("*.fits*")):
            info, _ = read_info(path.read_bytes(), uri=str(path), camera=self.camera)
            self.raws[info.detector] = str(path)
        self.settings = stage.settings.model_copy(update={"calibs_path": folder / "calibs"})
        self._child = ChildWorker(
            ChildSettings(
                results_url=self.settings.results_url,
                products_url=self.settings.products_url,
                calibs_path=folder / "calibs",
                warm=[],
            )
        )

    def post(self) -> None:
        """Post it with all its raws."""
        info, _ = read_info(Path(self.raws[min(self.raws)]).read_bytes(), uri="raw", camera=self.camera)
        self.stage.board.post(
            BatchSpec(
                key=BatchKey(exposure_id=self.exposure_id, pipeline="quicklook"),
                camera=self.camera.name,
                image_type="science",
                expected=frozenset(self.raws),
                raws=self.raws,
                info=info.model_dump(mode="json"),
            )
        )

    def process(self) -> None:
        """Run every job as a worker's child does."""
        for detector in self.raws:
            job = self.stage.take(detector)
            result = self._child.run_job(job).result
            assert result is not None
            self.stage.results.put_result(result)
            self.stage.board.complete(job, result.metrics)

    def gather(self) -> ExposureSummary:
        """Make summary and mosaics as the gather does, then what its studio draws."""
        job = self.stage.board.next_gather("gather-1", timeout_s=WAIT_S)
        assert job is not None
        stage = self.stage
        board = AsyncBoard(self.settings.redis_url, self.camera.name)  # never connected: only the summary is made
        summary = Gatherer(
            "gather-1", board, stage.results, stage.products, metrics=GatherMetrics(CollectorRegistry())
        ).make_summary(job)
        stage.board.complete_gather(job, {"products": summary.products})
        return summary

    def draw(self, summary: ExposureSummary) -> dict[str, str]:
        """Draw plots and movie; return their keys."""
        artist = Artist(self.stage.results, self.stage.products)
        made = artist.do(
            PlotTask(
                camera=summary.camera,
                exposure=summary.exposure,
                run=summary.run,
                pipeline=summary.pipeline,
                version=summary.version,
            )
        )
        return made | artist.do(NightTask(camera=summary.camera, day_obs=summary.day_obs, run=summary.run))
