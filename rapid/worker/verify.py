"""Verify what a job found: a calibration exposure as it arrives, a new master before it is certified.

A master is checked with its newest input, which is calibrated once more with the new calib, in the job that built it: so
no master is ever seen by a look-up that was not verified first. Limits: `rapid.verification.thresholds`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from payloads.plugin import CalibPlane, Calibs
from rapid.calibs.store import Verified
from rapid.camera.models import Detector
from rapid.errors import ConfigurationError
from rapid.exposure.models import ExposureInfo
from rapid.pipeline.models import Pipeline
from rapid.pipeline.store import load_pipeline
from rapid.results.models import Scalar
from rapid.verification.decide import Job, verdict_metrics, verify_detector
from rapid.verification.models import Subject, Verification
from rapid.verification.thresholds import Thresholds, load_thresholds
from rapid.worker.run import ExcludedFor, PipelineRun, PipelineRunner, RawInput

log = structlog.get_logger()

CHECKED_WITH_AN_INPUT = frozenset({"bias", "dark", "flat"})
"""Kinds of masters that show in a calibrated exposure whether they are good; others measure it as they are built."""

TAKEN_OVER = ("mean_e", "stdev_e", "n_bias_shifts")
"""Of the checked exposure, beside what begins with residual_: into the build's numbers."""


class Candidate:
    """Calibs as they are, with a new one in the place of its kind."""

    def __init__(self, kind: str, plane: CalibPlane, others: Calibs) -> None:
        self._kind = kind
        self._plane = plane
        self._others = others

    def get(self, kind: str) -> CalibPlane | None:
        """Return the new calib for its kind, the certified one for any other."""
        return self._plane if kind == self._kind else self._others.get(kind)


class Verifier:
    """Verifies the results of one worker's jobs.

    Parameters
    ----------
    runner
        Runs the check of a new master; shares its buffers with the jobs.
    calibs_for
        Certified calibs of an exposure.
    thresholds
        A site's own file; None for those that come with the package.
    """

    def __init__(
        self, runner: PipelineRunner, calibs_for: Callable[[ExposureInfo], Calibs], thresholds: Path | None = None
    ) -> None:
        self._runner = runner
        self._calibs_for = calibs_for
        self._path = thresholds
        self._in_force: Thresholds | None = None

    def _thresholds(self) -> Thresholds:
        """Return the thresholds as the file has them now; as it had them, if it cannot be read for a while."""
        try:
            self._in_force = load_thresholds(self._path)
        except ConfigurationError as error:
            if self._in_force is None:
                raise
            log.error("thresholds cannot be read: those of before are in force", error=error.message)
        return self._in_force

    def verify_exposure(self, run: PipelineRun, pipeline: Pipeline) -> Verification | None:
        """Verify a calibration exposure, and say so in its result; None if its pipeline verifies nothing.

        Raises
        ------
        ConfigurationError
            Raised if the site's thresholds cannot be read.
        """
        kind = pipeline.verifies
        if kind is None or run.info.image_type.value != kind or run.info.is_guider:
            return None
        job = self._job(run, kind, Subject.EXPOSURE, ())
        return self._say(run, verify_detector(job, run.result.metrics, run.result.amps, self._thresholds()))

    def verify_master(
        self,
        run: PipelineRun,
        kind: str,
        newest: RawInput,
        inputs: tuple[int, ...],
        excluded: Mapping[str, str],
        excluded_for: ExcludedFor | None = None,
    ) -> Verified:
        """Verify a new master, and say so in the result of its build.

        Parameters
        ----------
        newest
            Raw of the newest exposure in it.
        excluded
            Amps that are switched off, with the reason: not tested.
        excluded_for
            Amps that are switched off in the newest exposure.
        """
        frame, result = run.frame, run.result
        metrics: dict[str, Scalar] = dict(result.metrics)
        amps = {name: dict(row) for name, row in result.amps.items()}
        if kind in CHECKED_WITH_AN_INPUT and frame.image is not None:
            # Verified as it will be used: in float32 of the file, by the pipeline of its kind.
            plane = CalibPlane("candidate", frame.image, frame.variance)
            checked = self._runner.run(
                newest,
                pipeline=load_pipeline(kind),
                camera=frame.camera,
                calibs=Candidate(kind, plane, self._calibs_for(run.info)),
                excluded_for=excluded_for,
            )
            for name, row in checked.result.amps.items():
                if name in excluded:
                    continue
                numbers = {
                    key: value
                    for key, value in row.items()
                    if key.startswith(("residual_", "read_noise_"))
                    or key in {*TAKEN_OVER, "cr_noise_e", "amp_corner_e"}
                }
                result.amps.setdefault(name, {}).update(numbers)
                amps[name] = {**row, **amps.get(name, {}), **numbers}
            metrics = {**checked.result.metrics, **metrics}
        for name, why in excluded.items():
            amps[name] = {**amps.get(name, {}), "excluded": why}
        job = self._job(run, kind, Subject.MASTER, inputs)
        found = self._say(run, verify_detector(job, metrics, amps, self._thresholds()))
        if not found.outcome.is_success:
            log.warning(
                "new calib refused",
                kind=kind,
                detector=result.detector_name,
                outcome=found.outcome.value,
                failures=list(found.failures[:10]),
                not_measured=list(found.not_measured[:10]),
            )
        named = found.failures or tuple(f"{what} not measured" for what in found.not_measured)
        return Verified(
            outcome=found.outcome.value,
            is_success=found.outcome.is_success,
            failures=found.failures,
            document=found.to_stored(),
            reason="" if found.outcome.is_success else f"verification: {', '.join(named[:10])}",
        )

    @staticmethod
    def _job(run: PipelineRun, kind: str, subject: Subject, inputs: tuple[int, ...]) -> Job:
        info = run.info
        detector: Detector = run.frame.detector
        return Job(
            camera=info.camera,
            kind=kind,
            subject=subject,
            exposure=info.exposure_id,
            day_obs=info.day_obs,
            detector=detector,
            physical_filter=info.physical_filter if kind == "flat" else None,
            dark_time_s=info.dark_time_s or info.exposure_time_s,
            inputs=inputs,
        )

    @staticmethod
    def _say(run: PipelineRun, found: Verification) -> Verification:
        run.result.verification = found.to_stored()
        run.result.metrics.update(verdict_metrics(found))
        return found
