"""The process that draws plots, adds up the night and makes its movie: ``python -m rapid.gather.studio_child``.

It reads one line of JSON per task from its input and answers each with one line. Whatever a task does wrong is said in
its answer; the process goes on. It ends when its input does.
"""

import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from payloads.focus.plot import plot_focus_sweep
from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.errors import NotFoundError, RapidError
from rapid.gather.movie import (
    FOOT_PX,
    MAX_FRAMES,
    SIDE_PX,
    FrameStore,
    MovieInfo,
    encode_movie,
    keep_frame,
    make_frame,
    rate_of,
    words_of,
)
from rapid.gather.plots import plot_map, plot_whiskers
from rapid.gather.rollup import roll_up
from rapid.gather.studio_models import NightTask, PlotTask, StudioAnswer, StudioTask
from rapid.gather.sweep import POINTS, SweepPoints
from rapid.gather.visit_summary import make_visit_summary
from rapid.gather.whiskers import PsfMap, make_psf_map
from rapid.line_process import answer_lines
from rapid.products.naming import night_key, summary_key
from rapid.products.store import ProductsStore, open_products
from rapid.results.models import ExposureSummary, Scalar
from rapid.results.night import each_summary
from rapid.results.store import ResultsStore, open_results

log = structlog.get_logger()

NICENESS = 10
"""Plots wait for exposures, never the other way round."""
PLOTS, PLOTS_AFTER = "plots_s", "plots_after_s"
"""Timings added to a summary: how long its plots took, and how long after it was out they were begun [s]."""


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Shot:
    """A frame of the night's movie."""

    mosaic: str
    words: str
    n_expected: int


class Artist:
    """Does tasks, with stores that stay open between them."""

    def __init__(self, results: ResultsStore, products: ProductsStore) -> None:
        self._results = results
        self._products = products
        self._frames = FrameStore()

    def do(self, task: PlotTask | NightTask) -> dict[str, str]:
        """Do a task; return what was made of products, by kind."""
        return self._draw(task) if isinstance(task, PlotTask) else self._add_up(task)

    # -- plots -------------------------------------------------------------------------------------

    def _draw(self, task: PlotTask) -> dict[str, str]:
        began, begin = datetime.now(UTC), time.perf_counter()
        summary = self._results.summary_version(
            task.camera, task.exposure, run=task.run, pipeline=task.pipeline, version=task.version
        )
        if summary is None:
            raise NotFoundError("summary", f"{task.exposure} {task.pipeline} v{task.version}")
        camera = load_camera(task.camera)
        results = [
            result
            for result in self._results.results(task.exposure, camera=task.camera, run=task.run, pipeline=task.pipeline)
            if result.detector in summary.detectors
        ]
        table = make_visit_summary(camera, summary, results)
        made = {"visit_summary": self._keep(summary, "visit_summary", "ecsv", table)}
        psf_map = make_psf_map(camera, results, self._products, summary.info)
        made |= {
            kind: self._keep(summary, kind, extension, data)
            for kind, extension, data in self._plots(camera, summary, psf_map, {r.detector: r.metrics for r in results})
        }
        if made:
            timings = {PLOTS: round(time.perf_counter() - begin, 4)}
            if summary.gathered_at is not None:
                timings[PLOTS_AFTER] = round((began - _utc(summary.gathered_at)).total_seconds(), 4)
            # The row of this version alone: a later one has, or will have, its own.
            self._results.add_to_summary(summary, products=made, timings=timings)
        return made

    def _plots(
        self, camera: Camera, summary: ExposureSummary, psf_map: PsfMap, metrics: Mapping[int, Mapping[str, Scalar]]
    ) -> Iterator[tuple[str, str, bytes]]:
        name = f"{summary.day_obs} {summary.seq_num:06d}"
        words = " ".join(str(summary.info.get(key) or "") for key in ("physical_filter", "object_name")).strip()
        count = f"{summary.n_finished}/{summary.n_expected}" if summary.n_finished < summary.n_expected else ""
        title = "  ".join(part for part in (camera.name, name, words, count) if part)
        if psf_map.whiskers:
            yield "psf_map", "json", psf_map.model_dump_json().encode()
            yield "psf_whiskers_camera", "png", plot_whiskers(camera, psf_map, title=title, is_altaz=False)
            if psf_map.zenith_deg is not None:
                yield "psf_whiskers_altaz", "png", plot_whiskers(camera, psf_map, title=title, is_altaz=True)
        for kind, key, label in (
            ("fwhm_map", "psf_fwhm_arcsec", "FWHM [arcsec]"),
            ("zero_point_map", "zero_point_mag", "zero point [mag]"),
        ):
            values = {n: float(v) for n, found in metrics.items() if isinstance(v := found.get(key), int | float)}
            if values:
                yield kind, "png", plot_map(camera, values, title=title, label=label)
        if POINTS in summary.products:
            points = SweepPoints.model_validate_json(self._products.get(summary.products[POINTS]))
            heading = f"Focus sweep, {summary.day_obs} up to {summary.seq_num}"
            yield "focus_sweep", "png", plot_focus_sweep(points.z_mm, points.fwhm_arcsec, points.fit(), title=heading)

    def _keep(self, summary: ExposureSummary, kind: str, extension: str, data: bytes) -> str:
        key = summary_key(summary, kind=kind, extension=extension)
        types = {"png": "image/png", "json": "application/json", "ecsv": "text/plain; charset=utf-8"}
        self._products.put(key, data, content_type=types[extension])
        return key

    # -- the night ---------------------------------------------------------------------------------

    def _add_up(self, task: NightTask) -> dict[str, str]:
        shots: dict[int, _Shot] = {}

        def each() -> Iterator[ExposureSummary]:
            for summary in each_summary(self._results, task.camera, day_obs=task.day_obs, run=task.run):
                known = shots.get(summary.exposure)  # of several pipelines, that of most detectors
                if "mosaic" in summary.products and (known is None or summary.n_expected >= known.n_expected):
                    shots[summary.exposure] = _Shot(summary.products["mosaic"], words_of(summary), summary.n_expected)
                yield summary

        rollup = roll_up(task.camera, task.day_obs, each(), run=task.run)
        made = {
            "rollup": self._put_night(task, "rollup", "json", rollup.model_dump_json().encode(), "application/json")
        }
        if task.with_movie:
            made |= self._make_movie(task, shots)
        return made

    def _make_movie(self, task: NightTask, shots: Mapping[int, "_Shot"]) -> dict[str, str]:
        exposures: dict[str, int] = {}
        for exposure in sorted(shots)[-MAX_FRAMES:]:
            key, words = shots[exposure].mosaic, shots[exposure].words
            if key not in self._frames and (frame := self._frame(key, words)) is not None:
                self._frames.put(key, frame)
            if key in self._frames:
                exposures[key] = exposure
        self._frames.keep_only(exposures)  # those of other nights, and of older versions, are let go
        if not exposures:
            return {}
        rate = rate_of(len(exposures))
        movie = encode_movie(self._frames.read(exposures), frames_per_s=rate)
        info = MovieInfo(frames_per_s=rate, exposures=list(exposures.values()), width=SIDE_PX, height=SIDE_PX + FOOT_PX)
        return {
            "movie": self._put_night(task, "movie", "mp4", movie, "video/mp4"),
            "movie_info": self._put_night(task, "movie", "json", info.model_dump_json().encode(), "application/json"),
        }

    def _frame(self, key: str, words: str) -> bytes | None:
        try:
            return keep_frame(make_frame(self._products.get(key), words=words))
        except (RapidError, ValueError) as error:
            log.warning("frame left out of the movie", key=key, error=str(error))
            return None

    def _put_night(self, task: NightTask, kind: str, extension: str, data: bytes, content_type: str) -> str:
        key = night_key(task.camera, task.day_obs, run=task.run, kind=kind, extension=extension)
        self._products.put(key, data, content_type=content_type)
        return key


class Server:
    """Does tasks one after the other, with the artist of each pair of stores."""

    def __init__(self) -> None:
        self._artists: dict[tuple[str, str], Artist] = {}

    def answer(self, line: str) -> str:
        """Do the task of a line; return the line that tells what came of it."""
        answer = StudioAnswer()
        try:
            told = StudioTask.model_validate_json(line)
            stores = (told.results_url, told.products_url)
            if stores not in self._artists:
                self._artists[stores] = Artist(open_results(told.results_url), open_products(told.products_url))
            answer.products = self._artists[stores].do(told.task)
        except Exception as error:  # noqa: BLE001 - one task ends here, visibly; the next is done all the same
            answer.error = _described(error)
        return answer.model_dump_json()


def _described(error: Exception) -> dict[str, object]:
    code = error.code if isinstance(error, RapidError) else "exception"
    return {
        "code": code,
        "message": f"{type(error).__name__}: {error}"[:2000],
        "traceback": traceback.format_exc()[-8000:],
    }


def main() -> None:
    """Serve the process that started this one."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    answer_lines(Server().answer, niceness=NICENESS)


if __name__ == "__main__":
    main()
