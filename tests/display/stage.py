"""What head, workers and gather would do to a board and a results store, one step at a time and by hand."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, pstdev

from PIL import Image

from rapid.camera.models import Camera
from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, GatherJob, WorkerSpec
from rapid.display.app import serve
from rapid.display.settings import DisplaySettings
from rapid.products.naming import summary_key
from rapid.products.store import open_products
from rapid.results.models import DetectorResult, DetectorState, DetectorStatus, ExposureSummary, GatherReason
from rapid.results.store import open_results
from tests.support.records import make_result

DAY_OBS = 20261120
BEGIN = datetime(2026, 11, 21, 3, 0)  # noqa: DTZ001 - TAI, as headers write it
WAIT_S = 20.0

Metrics = Mapping[str, float]


def sky_metrics(detector: int, seq_num: int = 1) -> dict[str, float]:
    """Return numbers that differ from detector to detector and from exposure to exposure."""
    fwhm = 0.72 + 0.001 * detector + 0.01 * (seq_num % 17)
    return {
        "psf_fwhm_arcsec": round(fwhm, 4),
        "psf_e1": round(0.02 + 0.0001 * detector, 5),
        "psf_e2": -0.01,
        "n_stars": 200 + detector,
        "sky_level_e": 410.5 + detector,
        "sky_noise_e": 20.5,
    }


class Stage:
    """One night's board, results and products."""

    def __init__(self, camera: Camera, redis_url: str, folder: Path) -> None:
        self.camera = camera
        self.settings = DisplaySettings(
            camera=camera.name,
            redis_url=redis_url,
            results_url=f"sqlite:///{folder / 'results.sqlite'}",
            products_url=str(folder / "products"),
            heartbeat_s=1.0,
        )
        self.board = Board(redis_url, camera.name)
        self.results = open_results(self.settings.results_url)
        self.products = open_products(self.settings.products_url)

    @property
    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)

    def close(self) -> None:
        """Close what was opened."""
        self.board.close()
        self.results.close()

    def info(self, seq_num: int, image_type: str = "science") -> dict[str, object]:
        """Return the facts that the head would read from a header."""
        begin = BEGIN + timedelta(seconds=40 * seq_num)
        return {
            "object_name": "DEEP_F12",
            "program": "BLOCK-T1",
            "physical_filter": "r_57" if image_type == "science" else None,
            "begin": begin.isoformat(),
            "end": (begin + timedelta(seconds=30)).isoformat(),
            "exposure_time_s": 30.0,
            "airmass": 1.2,
            "image_type": image_type,
        }

    def post(self, seq_num: int, detectors: object = None, *, arrived: object = None, **facts: object) -> BatchKey:
        """Post an exposure: all science detectors, all raws there, unless told otherwise."""
        wanted = sorted(self.camera.science_ids) if detectors is None else list(detectors)
        image_type = str(facts.pop("image_type", "science"))
        key = BatchKey(exposure_id=DAY_OBS * 100_000 + seq_num, pipeline=str(facts.pop("pipeline", "quicklook")))
        self.board.post(
            BatchSpec(
                key=key,
                camera=self.camera.name,
                image_type=image_type,
                expected=frozenset(wanted),
                raws={number: f"/raws/{seq_num}/{number}.fits" for number in (wanted if arrived is None else arrived)},
                info=self.info(seq_num, image_type),
                **facts,
            )
        )
        return key

    def take(self, detector: int):
        """Claim a detector's newest job."""
        worker = WorkerSpec(worker_id=f"worker-{detector}", pinned=frozenset({detector}), host="here")
        job = self.board.claim(worker, timeout_s=WAIT_S)
        assert job is not None, f"no job for detector {detector}"
        return job

    def finish(
        self, detectors: object, *, metrics: Callable[[int, int], Metrics] = sky_metrics
    ) -> list[DetectorResult]:
        """Run the newest job of some detectors to the end."""
        done = []
        for detector in detectors:
            job = self.take(detector)
            result = self.result_of(detector, job.batch.exposure_id, job.batch.pipeline, metrics=metrics)
            self.results.put_result(result)
            self.board.complete(job, result.metrics)
            done.append(result)
        return done

    def result_of(
        self, detector: int, exposure_id: int, pipeline: str, *, metrics: Callable[[int, int], Metrics] = sky_metrics
    ) -> DetectorResult:
        """Return what a worker would have found."""
        seq_num = exposure_id % 100_000
        place = self.camera.by_id[detector]
        return make_result(
            seq_num,
            detector,
            camera=self.camera.name,
            pipeline=pipeline,
            detector_name=place.name,
            metrics=dict(metrics(detector, seq_num)),
            amps={amp.name: {"read_noise_electron": 5.25, "gain": 1.5} for amp in place.amps},
            timings={"read_header_s": 0.01, "isr_s": 0.2, "total_s": 0.5, "cpu_s": 0.4},
        )

    def fail(self, detector: int, message: str = "no stars in the image") -> None:
        """Let a detector's newest job fail for good."""
        job = self.take(detector)
        error = {"code": "payload_failed", "message": message, "retry": "never", "traceback": "Traceback\n  line 7"}
        self.board.fail(job, error)

    def gather(self, *, with_mosaic: bool = True) -> ExposureSummary:
        """Make the summary that is due."""
        job = self.board.next_gather("gather-1", timeout_s=WAIT_S)
        assert job is not None, "no gather is due"
        summary = self.summary_of(job)
        if with_mosaic:
            key = summary_key(summary, kind="mosaic", extension="jpg")
            self.products.put(key, picture(summary.version), content_type="image/jpeg")
            summary.products["mosaic"] = key
        self.results.put_summary(summary)
        self.board.complete_gather(job, {"day_obs": DAY_OBS, "products": summary.products})
        return summary

    def summary_of(self, job: GatherJob) -> ExposureSummary:
        """Return what a gather would write."""
        metrics: dict[str, float] = {}
        for key in {key for found in job.results.values() for key in found}:
            values = [float(found[key]) for found in job.results.values() if key in found]
            metrics |= {f"{key}_median": median(values), f"{key}_scatter": pstdev(values), f"{key}_total": sum(values)}
        if metrics:
            metrics["n_stars_median"] = 777.0  # a page that adds up for itself would show another number
        return ExposureSummary(
            camera=self.camera.name,
            exposure=job.batch.exposure_id,
            day_obs=DAY_OBS,
            seq_num=job.batch.exposure_id % 100_000,
            pipeline=job.batch.pipeline,
            image_type=job.image_type,
            version=job.version,
            reason=job.reason,
            n_finished=len(job.finished),
            n_expected=len(job.expected),
            is_complete=job.finished == job.expected,
            detectors=job.detectors,
            metrics=metrics,
            info=job.info,
            control=job.control,
            timings={"total_s": 0.25, "mosaic_s": 0.125},
            gathered_at=datetime.now(UTC),
        )

    def put_night(self, n: int, *, day_obs: int = DAY_OBS, first: int = 1) -> list[ExposureSummary]:
        """Write a night of summaries straight into the store: what an earlier process left behind."""
        detectors = sorted(self.camera.science_ids)
        summaries = []
        for seq_num in range(first, first + n):
            lost = {detectors[0]} if seq_num % 50 == 0 and len(detectors) > 1 else set()
            states = {
                number: DetectorStatus(state=DetectorState.FAILED, reason="no stars in the image")
                if number in lost
                else DetectorStatus(state=DetectorState.FINISHED)
                for number in detectors
            }
            values = sky_metrics(0, seq_num)
            summaries.append(
                ExposureSummary(
                    camera=self.camera.name,
                    exposure=day_obs * 100_000 + seq_num,
                    day_obs=day_obs,
                    seq_num=seq_num,
                    pipeline="quicklook",
                    image_type="science",
                    version=1,
                    reason=GatherReason.TIMEOUT if lost else GatherReason.COMPLETE,
                    n_finished=len(detectors) - len(lost),
                    n_expected=len(detectors),
                    is_complete=not lost,
                    detectors=states,
                    metrics={f"{key}_median": value for key, value in values.items()},
                    info={**self.info(seq_num), "physical_filter": "r_57" if seq_num % 2 else "i_39"},
                    gathered_at=datetime(2026, 11, 21, 3, 0, tzinfo=UTC) + timedelta(seconds=40 * seq_num),
                )
            )
            self.results.put_summary(summaries[-1])
        return summaries


def picture(version: int) -> bytes:
    """Return a small JPEG that differs from version to version."""
    out = io.BytesIO()
    Image.linear_gradient("L").rotate(90 * version).save(out, "JPEG")
    return out.getvalue()


@contextmanager
def serve_display(settings: DisplaySettings, *, port: int = 0) -> Iterator[str]:
    """Serve a display from another thread until the block ends; its URL without the last slash."""
    listening = threading.Event()
    state: dict[str, object] = {}

    async def main() -> None:
        def ready(url: str) -> None:
            state["url"] = url.rstrip("/")
            listening.set()

        task = asyncio.current_task()
        state["stop"] = (asyncio.get_running_loop(), task)
        await serve(settings, host="127.0.0.1", port=port, ready=ready)

    def run() -> None:
        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            state["cancelled"] = True
        except BaseException as error:  # noqa: BLE001 - handed to the test that waits
            state["error"] = error
        finally:
            listening.set()

    thread = threading.Thread(target=run, name="display", daemon=True)
    thread.start()
    assert listening.wait(3 * WAIT_S), "the display does not listen"
    if "error" in state:
        raise state["error"]  # type: ignore[misc]
    try:
        yield str(state["url"])
    finally:
        loop, task = state["stop"]  # type: ignore[misc]
        loop.call_soon_threadsafe(task.cancel)
        thread.join(WAIT_S)
        assert not thread.is_alive(), "the display does not stop"
        assert state.get("cancelled"), f"the display did not end by cancellation: {state.get('error')}"
