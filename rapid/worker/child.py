"""The process that runs payload code: may be killed at any instant.

A worker keeps its Redis connection, its heartbeat and its lease in the parent process and runs science
in this child, so that a payload that hangs, leaks or crashes takes nothing with it, and so that a
backlog job can be abandoned in milliseconds. Parent and child speak JSON lines: commands on the child's
standard input, answers on a pipe of its own (payloads may print what they like). Every product is
written whole or not at all by the products store, so a kill leaves nothing half-written (I3).
"""

import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import cv2
import numba
import numpy as np
import pydantic_core
import structlog
from astropy.io import fits

from payloads.plugin import EXCLUDED, Frame
from rapid.arrival.source import read_raw
from rapid.calibs.store import CalibCache, CalibStore, FrameCalibs, PinnedCalibs
from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.dispatch.models import Job
from rapid.errors import PayloadError, PayloadRetryError, RapidError, Retry
from rapid.exclusions.bad_exposures import BadExposureStore
from rapid.exclusions.decide import Excluded, begin_utc, choose_excluded
from rapid.exclusions.store import ExclusionStore
from rapid.exposure.models import ExposureInfo
from rapid.pipeline.models import Pipeline, base_of
from rapid.pipeline.store import load_pipeline
from rapid.products.naming import detector_key
from rapid.products.store import ProductsStore, open_products
from rapid.results.headers import add_provenance
from rapid.results.models import CalibState
from rapid.results.store import ResultsStore, open_results
from rapid.worker.messages import PRELOAD, ChildAnswer, ChildSettings, Preload
from rapid.worker.preparing import Preloads
from rapid.worker.run import ExcludedFor, PipelineRun, PipelineRunner, RawInput
from rapid.worker.verify import Verifier

log = structlog.get_logger()

TABLES_OF_CURVES = frozenset({"linearity", "crosstalk"})
"""Calibs whose tables hold levels and amps as names: an amp that was switched off is not in them."""


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return an error as JSON facts: code, message, retry policy and traceback."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, RapidError):
        return {**error.to_dict(), "traceback": text}
    retry = Retry.LATER if isinstance(error, OSError | MemoryError) else Retry.NEVER
    return {
        "code": "payload_crashed",
        "message": f"{type(error).__name__}: {error}",
        "retry": retry.value,
        "traceback": text,
    }


def binned_fits(run: PipelineRun) -> bytes:
    """Return the binned image as a small FITS file with its provenance, as bytes."""
    frame, result = run.frame, run.result
    hdu = fits.PrimaryHDU(frame.binned)
    header = hdu.header
    header["INSTRUME"] = result.camera
    header["EXPID"] = (result.exposure, "exposure id")
    header["DETECTOR"] = result.detector
    header["DETNAME"] = result.detector_name
    header["IMGTYPE"] = result.image_type
    header["BUNIT"] = frame.unit
    header["BINNING"] = 8
    add_provenance(header, result.provenance)
    buffer = io.BytesIO()
    hdu.writeto(buffer)
    return buffer.getvalue()


class ChildWorker:
    """Runs jobs with stores that stay open between them."""

    def __init__(self, settings: ChildSettings) -> None:
        if settings.templates is not None:
            # Payloads know no settings of ours; what the environment says already is what they were told from.
            os.environ["RAPID_TEMPLATES"] = str(settings.templates)
        self.products: ProductsStore = open_products(settings.products_url)
        self.results: ResultsStore = open_results(settings.results_url)
        self.calibs = CalibStore(settings.calibs_path, self.results)
        self._bad = BadExposureStore(self.results.engine)
        self._cache = CalibCache(self.calibs, self.results)
        self.runner = PipelineRunner(calibs_for=self._calibs_for)
        self.preloads = Preloads(self.results, self._cache, self.runner.built)
        self._exclusions = ExclusionStore(self.results.engine)
        self.verifier = Verifier(self.runner, self._calibs_for, settings.thresholds)
        for name in settings.warm:
            try:
                payloads = self.runner.payloads_of(load_pipeline(name))
            except RapidError as error:
                # Its jobs will fail and say so; those of other pipelines must not.
                log.warning("pipeline cannot be built", pipeline=name, error=error.message)
                continue
            for payload in payloads:
                warm_up = getattr(payload, "warm_up", None)
                if warm_up is not None:
                    warm_up()

    def _calibs_for(self, info: ExposureInfo) -> FrameCalibs:
        return FrameCalibs(self._cache, info)

    def run_job(self, job: Job) -> ChildAnswer:
        """Run one job and write its products."""
        self._cache.refresh()
        camera = load_camera(job.camera)
        pipeline = load_pipeline(job.batch.pipeline)
        if job.config:
            try:
                pipeline = pipeline.with_config(job.config)
            except KeyError as error:
                message = f"pipeline {pipeline.name} has no payload {error.args[0]}"
                raise PayloadError(message, pipeline=pipeline.name) from error
        left_out = self._bad.excluded_inputs(job.camera, job.inputs, job.detector) if job.inputs else {}
        inputs = [
            (one, uri) for one in job.inputs if one not in left_out and (uri := self._input(job, one, left_out, camera))
        ]
        excluded_for = self._excluded_amps_of(camera) if job.inputs else None
        raw = RawInput(uri=job.raw_uri, data=read_raw(job.raw_uri))
        base = base_of(pipeline.name)
        run = self.runner.run(
            raw,
            pipeline=pipeline,
            camera=camera,
            run_label=job.batch.run,
            inputs=[(exposure_id, self._loader(uri)) for exposure_id, uri in inputs],
            calibs=self._calibs_of_result(job, base) if base is not None else None,
            excluded_for=excluded_for,
        )
        for amp, why in run.frame.excluded_amps.items() if pipeline.builds else ():
            run.result.amps[amp] = {EXCLUDED: why}  # whatever a build may say of it
        if left_out:
            run.result.metrics["n_inputs_excluded"] = len(left_out)
            run.result.metrics["inputs_excluded"] = "; ".join(f"{one}: {why}" for one, why in left_out.items())[:1000]
        self._write_products(run)
        if base is not None:
            return ChildAnswer(result=run.result, joins=base)
        certified = None
        if pipeline.builds:
            newest = self._loader(inputs[-1][1]) if inputs else None
            certified = self._certify(
                run, pipeline, camera, [one for one, _ in inputs], newest=newest, excluded_for=excluded_for
            )
        else:
            self.verifier.verify_exposure(run, pipeline)
        run.frame.inputs = []
        return ChildAnswer(result=run.result, certified=certified)

    def _calibs_of_result(self, job: Job, pipeline: str) -> PinnedCalibs:
        """Return the calibs of the result that an afterburner adds to: it measures that image and no other."""
        found = self.results.results(
            job.batch.exposure_id, camera=job.camera, run=job.batch.run, pipeline=pipeline, detector=job.detector
        )
        if not found:
            message = f"no {pipeline} of exposure {job.batch.exposure_id} detector {job.detector} to add to"
            raise PayloadRetryError(message, exposure=job.batch.exposure_id, detector=job.detector)
        return PinnedCalibs(self.calibs, self.results, job.camera, found[0].provenance.calibs)

    def _input(self, job: Job, exposure_id: int, left_out: dict[int, str], camera: Camera) -> str | None:
        """Return where the raw of an input exposure is, as its own result recorded it.

        None, with the reason noted, if the detector was switched off when it was taken, or its raw could not be used.
        """
        for result in self.results.results(exposure_id, camera=job.camera, detector=job.detector):
            why = self._excluded(camera, result.begin).detectors.get(job.detector)
            if why is not None:
                left_out[exposure_id] = why
                return None
            return result.provenance.raw
        for summary in self.results.summary_versions(job.camera, exposure_id):
            status = summary.detectors.get(job.detector)
            if status is not None and status.state.is_without_result:
                left_out[exposure_id] = f"{status.state.value}: {status.reason or 'no reason given'}"
                return None
        message = f"no result of exposure {exposure_id} detector {job.detector} to build from"
        raise PayloadError(message, exposure=exposure_id, detector=job.detector)

    @staticmethod
    def _loader(uri: str) -> Any:
        return lambda: RawInput(uri=uri, data=read_raw(uri))

    def _write_products(self, run: PipelineRun) -> None:
        frame, result = run.frame, run.result
        if frame.binned is not None:
            key = detector_key(result, kind="binned", extension="fits")
            self.products.put(key, binned_fits(run), content_type="application/fits")
            result.products["binned"] = key
        for name, table in frame.tables.items():
            key = detector_key(result, kind=name, extension="json")
            self.products.put(key, table_json(table), content_type="application/json")
            result.products[name] = key
        for name, file in frame.files.items():
            key = detector_key(result, kind=name, extension=file.extension)
            self.products.put(key, file.data, content_type=file.content_type)
            result.products[name] = key
        if frame.tables or frame.files:
            # A table or a picture has no header to say how it came to be.
            kind = "provenance" if base_of(result.pipeline) is None else "afterburner_provenance"
            key = detector_key(result, kind=kind, extension="json")
            facts = {**result.provenance.model_dump(mode="json"), "products": dict(result.products)}
            self.products.put(key, json.dumps(facts, sort_keys=True).encode(), content_type="application/json")
            result.products[kind] = key

    def _excluded(self, camera: Camera, begin_tai: datetime | None) -> Excluded:
        """Return what was switched off in an exposure, by the rule by which the head decides."""
        begin = begin_utc(begin_tai, now=datetime.now(UTC))
        return choose_excluded(self._exclusions.active(camera.name, begin), camera, begin)

    def _excluded_amps_of(self, camera: Camera) -> ExcludedFor:
        """Return what tells which amps of an input of a build were switched off."""

        def amps_of(info: ExposureInfo) -> Mapping[str, str]:
            return self._excluded(camera, info.begin).amps.get(camera.by_id[info.detector].name, {})

        return amps_of

    def _certify(
        self,
        run: PipelineRun,
        pipeline: Pipeline,
        camera: Camera,
        inputs: list[int],
        *,
        newest: Callable[[], RawInput] | None,
        excluded_for: ExcludedFor | None,
    ) -> str | None:
        """Verify what was built, and register it: certified, or refused. Returns its id if it was certified."""
        frame: Frame = run.frame
        if frame.image is None or pipeline.builds is None:
            message = f"pipeline {pipeline.name} built nothing"
            raise PayloadError(message, pipeline=pipeline.name)
        info = run.info
        if info.begin is None:
            message = "an exposure without a start time cannot date a calib"
            raise PayloadError(message, exposure=info.exposure_id)
        verified = None
        if newest is not None:
            verified = self.verifier.verify_master(
                run, pipeline.builds, newest(), tuple(inputs), frame.excluded_amps, excluded_for=excluded_for
            )
        table = frame.calib_table if frame.calib_table is not None else _amp_numbers(frame.amps)
        if pipeline.builds not in TABLES_OF_CURVES:
            table = {**table, **{amp: {**table.get(amp, {}), EXCLUDED: 1.0} for amp in frame.excluded_amps}}
        record = self.calibs.certify(
            kind=pipeline.builds,
            camera=camera.name,
            detector=info.detector,
            physical_filter=info.physical_filter if pipeline.builds == "flat" else None,
            image=frame.image,
            variance=frame.variance,
            counts=frame.counts,
            table=table,
            valid_from=info.begin,
            inputs=inputs,
            certified_by="policy",
            note=f"{pipeline.name} {pipeline.version}",
            provenance=run.result.provenance,
            verified=verified,
        )
        run.result.metrics["calib_id"] = record.calib_id
        run.result.metrics["calib_state"] = record.state.value
        return record.calib_id if record.state is CalibState.CERTIFIED else None


def _amp_numbers(amps: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the per-amp metrics that are finite numbers."""
    return {
        amp: {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
        }
        for amp, values in amps.items()
    }


def table_json(table: Mapping[str, Sequence[Any]]) -> bytes:
    """Return a table as JSON, by columns; numbers that are not finite become null.

    Raises
    ------
    pydantic_core.PydanticSerializationError
        Raised for a value that JSON has no form for.

    Examples
    --------
    >>> table_json({"x": [1.5, float("nan")], "n": np.arange(2)})
    b'{"x":[1.5,null],"n":[0,1]}'
    """

    def python_value(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} is no value of a table")

    return pydantic_core.to_json(table, inf_nan_mode="null", fallback=python_value)


def serve(commands: TextIO, answers: TextIO) -> None:
    """Read settings, then jobs, until the parent closes the pipe."""
    told = commands.readline()
    if not told:
        return  # the parent is gone already
    settings = ChildSettings.model_validate_json(told)

    def say(answer: ChildAnswer) -> None:
        answers.write(answer.model_dump_json() + "\n")
        answers.flush()

    worker = ChildWorker(settings)
    say(ChildAnswer(ready=True))
    for line in commands:
        try:
            document = json.loads(line)
            if PRELOAD in document:
                answer = ChildAnswer(more=worker.preloads.take(Preload.model_validate(document[PRELOAD])))
            else:
                answer = worker.run_job(Job.model_validate_json(line))
        except Exception as error:  # noqa: BLE001 - one job ends here as failed; the child goes on with the next
            answer = ChildAnswer(error=describe_error(error))
        say(answer)


def main() -> None:
    """Run as ``python -m rapid.worker.child ANSWER_FD``."""
    # The parent decides when to stop: a Ctrl-C in the terminal reaches the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    numba.set_num_threads(1)
    try:
        with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answers:
            serve(sys.stdin, answers)
    except BrokenPipeError:
        return  # the parent was killed: its job is in other hands by now, and nobody is left to tell


if __name__ == "__main__":
    main()
