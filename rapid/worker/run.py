"""Run a pipeline on one raw: no Redis, no queue, no store.

`rapid process` calls this in its own process, a worker's child calls it for every job. It measures
what each payload costs from outside, so that science code carries no instrumentation.
"""

import hashlib
import math
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rapid
from payloads.plugin import Calibs, Frame, NoCalibs, Payload
from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.errors import NotFoundError
from rapid.exposure.formats import format_of
from rapid.exposure.models import ExposureInfo
from rapid.pipeline.models import Pipeline, PipelineBook, base_of
from rapid.pipeline.store import choose_pipeline
from rapid.results.models import DetectorResult, Provenance, Scalar
from rapid.worker.registry import make_payloads, resolved_hash

KEPT_CONFIGURATIONS = 2
"""Configurations of one pipeline whose payloads stay built: the usual one, and that of a request or of excluded amps.
Each holds the planes of an image, 200 MB for an LSSTCam detector."""


ExcludedFor = Callable[[ExposureInfo], Mapping[str, str]]
"""Gives the amps that were switched off in an exposure of a detector, with the reason."""


@dataclass(frozen=True)
class RawInput:
    """The bytes of a raw and where they are from."""

    uri: str
    data: bytes


@dataclass
class PipelineRun:
    """A finished run: the document to store, and the frame with its planes."""

    result: DetectorResult
    frame: Frame
    info: ExposureInfo


@dataclass(frozen=True)
class Found:
    """What a frame has been given so far."""

    metrics: dict[str, Any]
    amps: dict[str, dict[str, Any]]
    tables: frozenset[str]
    files: frozenset[str]

    @classmethod
    def of(cls, frame: Frame) -> "Found":
        """Note what a frame has."""
        amps = {amp: dict(values) for amp, values in frame.amps.items()}
        return cls(dict(frame.metrics), amps, frozenset(frame.tables), frozenset(frame.files))

    def take_off(self, frame: Frame) -> None:
        """Leave in a frame only what is new, or has another value, since."""
        frame.metrics = _changed(frame.metrics, self.metrics)
        changed = {amp: _changed(values, self.amps.get(amp, {})) for amp, values in frame.amps.items()}
        frame.amps = {amp: values for amp, values in changed.items() if values}
        frame.tables = {name: table for name, table in frame.tables.items() if name not in self.tables}
        frame.files = {name: file for name, file in frame.files.items() if name not in self.files}
        frame.binned = None


def _changed(values: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    def is_same(name: str) -> bool:
        one, other = values[name], before[name]
        return bool(one == other) or (one != one and other != other)  # NaN alone differs from itself

    return {name: value for name, value in values.items() if name not in before or not is_same(name)}


@dataclass
class _Usage:
    """Clock, CPU and I/O of this process at one moment."""

    wall_s: float
    cpu_s: float
    read_bytes: float
    written_bytes: float

    @classmethod
    def now(cls) -> "_Usage":
        usage = resource.getrusage(resource.RUSAGE_SELF)
        read, written = _io_bytes()
        return cls(time.perf_counter(), usage.ru_utime + usage.ru_stime, read, written)


def _io_bytes() -> tuple[float, float]:
    """Return bytes read and written so far by this process; zeros where the kernel does not tell."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return 0.0, 0.0
    facts = dict(line.split(": ") for line in text.splitlines())
    return float(facts.get("rchar", 0)), float(facts.get("wchar", 0))


def _reset_peak_memory() -> None:
    # Writing 5 resets VmHWM, so that a job's peak is its own and not its predecessor's.
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _memory_mb() -> dict[str, float]:
    """Return the peak since the last reset, and what is this process's own now.

    The peak counts the pages of memory-mapped calibs, which all workers of a machine share; ``anon_mb`` does not.
    """
    facts = {"VmHWM": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, "RssAnon": 0.0}
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name in facts:
                facts[name] = float(value.split()[0]) / 1024.0
    except OSError:
        pass
    return {"max_rss_mb": round(facts["VmHWM"], 1), "anon_mb": round(facts["RssAnon"], 1)}


def _finite(value: Any) -> Scalar:
    """Return a JSON-safe scalar: NaN and infinities become None, numpy's numbers Python's."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def make_frame(
    raw: RawInput, *, camera: Camera | None = None, calibs: Calibs | None = None
) -> tuple[Frame, ExposureInfo]:
    """Read a raw's headers and make the frame that payloads work on.

    Raises
    ------
    RawError
        Raised, as the subclass that names the problem, for a raw that cannot be used.
    """
    facts = format_of(raw.uri, camera).read(raw.data, uri=raw.uri, camera=camera)
    info = facts.info
    camera = camera or load_camera(info.camera)
    detector = camera.detector(info.detector, physical_type=facts.ccd_type if camera.variants else None)
    if detector is None:
        raise NotFoundError("detector", info.detector, camera.name)
    frame = Frame(
        raw=facts.data if isinstance(facts.data, bytes) else raw.data,
        info=info,
        header=dict(facts.header),
        camera=camera,
        detector=detector,
        calibs=calibs or NoCalibs(),
    )
    return frame, info


@dataclass
class PipelineRunner:
    """Runs pipelines; keeps the built payloads, with their buffers, between runs.

    Parameters
    ----------
    calibs_for
        Gives the calib source of an exposure; None runs without calibs.
    book
        Pipelines to choose from; the installation's if left out.
    """

    calibs_for: Callable[[ExposureInfo], Calibs] | None = None
    book: PipelineBook | None = None
    _built: dict[str, list[Payload]] = field(default_factory=dict)
    _hashes: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, list[str]] = field(default_factory=dict)

    def built(self) -> list[Payload]:
        """Return the payloads that were built so far."""
        return [payload for payloads in self._built.values() for payload in payloads]

    def payloads_of(self, pipeline: Pipeline) -> list[Payload]:
        """Return the pipeline's payloads, built once per configuration."""
        key = pipeline.config_hash
        if key not in self._built:
            built, resolved = make_payloads(pipeline), resolved_hash(pipeline)
            kept = self._kept.setdefault(pipeline.name, [])
            if len(kept) >= KEPT_CONFIGURATIONS:
                oldest = kept.pop(0)
                del self._built[oldest], self._hashes[oldest]
            kept.append(key)
            self._built[key], self._hashes[key] = built, resolved
        return self._built[key]

    def run(
        self,
        raw: RawInput,
        *,
        pipeline: Pipeline | None = None,
        camera: Camera | None = None,
        run_label: str = "prompt",
        inputs: Sequence[tuple[int, Callable[[], RawInput]]] = (),
        calibs: Calibs | None = None,
        excluded_for: ExcludedFor | None = None,
    ) -> PipelineRun:
        """Run a pipeline on one raw.

        Parameters
        ----------
        raw
            The raw; for a build, that of the newest exposure.
        pipeline
            What to run; chosen by the rules if left out.
        inputs
            For a build: exposure id and loader of every raw to combine.
        calibs
            In place of those of the exposure.
        excluded_for
            Amps that are switched off in an exposure, with the reason: in each input of a build, or in the raw itself.
            None if the pipeline's settings have them.

        Raises
        ------
        RawError
            Raised for a raw that cannot be read.
        PayloadError
            Raised by a payload for a failure it understands.
        """
        _reset_peak_memory()
        start = _Usage.now()
        timings: dict[str, float] = {}
        frame, info = make_frame(raw, camera=camera)
        if calibs is not None:
            frame.calibs = calibs
        elif self.calibs_for is not None:
            frame.calibs = self.calibs_for(info)
        if excluded_for is not None and not inputs:
            frame.excluded_amps = excluded_for(info)
        pipeline = pipeline or choose_pipeline(info, dict(frame.header), self.book, purpose=frame.detector.purpose)
        input_sha256: dict[str, str] = {}
        frame.inputs = [
            self._input_loader(
                loader, frame, exposure_id=exposure_id, checksums=input_sha256, excluded_for=excluded_for
            )
            for exposure_id, loader in inputs
        ]
        timings["read_header_s"] = time.perf_counter() - start.wall_s
        versions: dict[str, str] = {}
        is_after = base_of(pipeline.name) is not None
        before: Found | None = None
        for payload in self.payloads_of(pipeline):
            begin = time.perf_counter()
            payload.run(frame)
            if is_after and before is None:
                before = Found.of(frame)  # the first step's numbers are in the result already
            timings[f"{payload.name}_s"] = time.perf_counter() - begin
            versions[payload.name] = payload.version
        if before is not None:
            before.take_off(frame)
        begin = time.perf_counter()
        checksum = hashlib.sha256(raw.data).hexdigest()
        timings["checksum_s"] = time.perf_counter() - begin
        end = _Usage.now()
        timings["total_s"] = end.wall_s - start.wall_s
        timings["cpu_s"] = end.cpu_s - start.cpu_s
        result = DetectorResult(
            run=run_label,
            camera=info.camera,
            exposure=info.exposure_id,
            day_obs=info.day_obs,
            seq_num=info.seq_num,
            detector=info.detector,
            detector_name=info.detector_name,
            image_type=info.image_type.value,
            physical_filter=info.physical_filter,
            exposure_time_s=info.exposure_time_s,
            begin=info.begin,
            pipeline=pipeline.name,
            metrics={name: _finite(value) for name, value in frame.metrics.items()},
            amps={amp: {name: _finite(v) for name, v in values.items()} for amp, values in frame.amps.items()},
            timings={name: round(value, 6) for name, value in timings.items()},
            resources={
                **_memory_mb(),
                "read_bytes": end.read_bytes - start.read_bytes,
                "written_bytes": end.written_bytes - start.written_bytes,
            },
            provenance=Provenance(
                software_version=rapid.__version__,
                pipeline=pipeline.name,
                pipeline_version=pipeline.version,
                config_hash=self._hashes[pipeline.config_hash],
                payloads=versions,
                applied=list(frame.applied),
                calibs=dict(frame.calib_ids),
                raw=raw.uri,
                raw_sha256=checksum,
                inputs=[exposure_id for exposure_id, _ in inputs],
                input_sha256=dict(sorted(input_sha256.items())),
                host=socket.gethostname(),
            ),
            finished_at=datetime.now(UTC),
        )
        return PipelineRun(result=result, frame=frame, info=info)

    def _input_loader(
        self,
        load: Callable[[], RawInput],
        build: Frame,
        *,
        exposure_id: int,
        checksums: dict[str, str],
        excluded_for: ExcludedFor | None,
    ) -> Callable[[], Frame]:
        """Return what loads an input of a build, with the calibs of the build's newest exposure.

        All inputs get the same ones: else one that became valid in the middle of a sequence, as another build of that
        sequence does with its last exposure, would make its exposures unlike.
        """
        camera, calibs = build.camera, build.calibs

        def load_frame() -> Frame:
            raw = load()
            if str(exposure_id) not in checksums:  # a payload may load an input more than once
                checksums[str(exposure_id)] = hashlib.sha256(raw.data).hexdigest()
            frame, info = make_frame(raw, camera=camera)
            frame.calibs = calibs
            if excluded_for is not None:
                frame.excluded_amps = excluded_for(info)
            return frame

        return load_frame
