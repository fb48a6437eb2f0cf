"""The process that makes calibrated images for the display: ``python -m rapid.display.images.develop``.

A calibrated image is not kept when it is measured: three planes of 200 MB for each of 189 detectors would cost more
time than all the science. Whoever zooms in has the one raw read and calibrated again, which takes less than a second.
One line of JSON per task comes in, one answer goes out; it ends when its input does.
"""

import hashlib
import sys
import time
from collections import OrderedDict
from functools import partial

import cv2
import numba
import numpy as np
import structlog

from rapid.arrival.source import read_raw
from rapid.calibs.store import CalibCache, CalibStore, FrameCalibs
from rapid.camera.store import load_camera
from rapid.display.images.models import DevelopAnswer, DevelopTask
from rapid.errors import PayloadError, RapidError
from rapid.line_process import answer_lines
from rapid.pipeline.store import load_pipeline
from rapid.results.store import open_results
from rapid.worker.run import PipelineRunner, RawInput, make_frame

NICENESS = 5
"""The night's own jobs come first."""
N_RUNNERS = 3
"""Pipelines whose payloads stay built; each holds planes of 200 MB."""


class Developer:
    """Makes images, with calibs and payloads that stay in memory between them."""

    def __init__(self) -> None:
        self._caches: dict[tuple[str, str], CalibCache] = {}
        self._runners: OrderedDict[str, PipelineRunner] = OrderedDict()

    def develop(self, task: DevelopTask) -> DevelopAnswer:
        """Make one image and write it to its target.

        Raises
        ------
        RapidError
            Raised if the raw is gone or cannot be read, or the pipeline makes no image.
        """
        begin = time.perf_counter()
        camera = load_camera(task.camera)
        raw = RawInput(uri=task.raw_uri, data=read_raw(task.raw_uri))
        cache = self._cache(task)
        cache.refresh()
        frame, info = make_frame(raw, camera=camera)
        frame.calibs = FrameCalibs(cache, info)
        notes = []
        for payload in self._runner(task.pipeline).payloads_of(load_pipeline(task.pipeline)):
            payload.run(frame)
            if frame.image is not None:
                break  # the rest measures
        if frame.image is None:
            message = f"pipeline {task.pipeline} makes no image of a detector"
            raise PayloadError(message, pipeline=task.pipeline)
        if hashlib.sha256(raw.data).hexdigest() != task.raw_sha256:
            notes.append("the raw is no longer the one that was measured")
        # Written whole, then named: a reader never sees half of it.
        part = task.target.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, np.ascontiguousarray(frame.image, dtype=np.float32))
        part.replace(task.target)
        return DevelopAnswer(
            unit={"electron": "e⁻"}.get(frame.unit, frame.unit),
            applied=list(frame.applied),
            calibs=dict(frame.calib_ids),
            notes=notes,
            took_s=round(time.perf_counter() - begin, 4),
        )

    def _cache(self, task: DevelopTask) -> CalibCache:
        key = (task.results_url, str(task.calibs_path))
        if key not in self._caches:
            results = open_results(task.results_url)
            self._caches[key] = CalibCache(CalibStore(task.calibs_path, results), results)
        return self._caches[key]

    def _runner(self, pipeline: str) -> PipelineRunner:
        runner = self._runners.pop(pipeline, None) or PipelineRunner()
        self._runners[pipeline] = runner
        while len(self._runners) > N_RUNNERS:
            self._runners.popitem(last=False)
        return runner


def answer(developer: Developer, line: str) -> str:
    """Make the image of a line; return the line that tells what came of it."""
    try:
        made = developer.develop(DevelopTask.model_validate_json(line))
    except RapidError as error:
        made = DevelopAnswer(error={**error.to_dict()})
    except Exception as error:  # noqa: BLE001 - one image ends here, visibly; the next is made all the same
        made = DevelopAnswer(error={"code": "develop_failed", "message": f"{type(error).__name__}: {error}"[:2000]})
    return made.model_dump_json()


def main() -> None:
    """Serve the process that started this one."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    cv2.setNumThreads(1)
    numba.set_num_threads(1)
    answer_lines(partial(answer, Developer()), niceness=NICENESS)


if __name__ == "__main__":
    main()
