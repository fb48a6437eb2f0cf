"""A recorded night: what arrived and was asked for and when, and what came of it.

A folder, or the same files in a ``.zip``, all text but the pixels:

=====================  =============================================================================
``recording.json``     format, version, camera, seed, how pixels are kept: `Manifest`
``events.jsonl``       arrivals, control changes, requests, ... one a line, in time: `replay.events`
``headers.txt``        primary headers as FITS cards, each said once: `replay.headers`
``exposures.jsonl``    what was exposed, as a plan says it: pixels are made from it and the seed
``results.jsonl``      results to compare with, a table of detectors an exposure and pipeline
``summaries.jsonl``    newest summary of each exposure and pipeline
``pixels/KEY``         raws, if they were kept
=====================  =============================================================================

Read through pydantic; a format of a later version is refused.
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from rapid.camera.models import Camera
from rapid.errors import ConfigurationError
from rapid.results.models import Scalar
from replay.events import EVENT, NightEvent, RawsEvent
from replay.headers import NightHeaders
from replay.plan import PlannedExposure

FORMAT: Literal["rapid-recording"] = "rapid-recording"
VERSION = 2
MANIFEST = "recording.json"
PIXELS = "pixels"
FILES = {MANIFEST, "events.jsonl", "headers.txt", "exposures.jsonl", "results.jsonl", "summaries.jsonl", PIXELS}
"""What a folder of a recording holds of ours."""

MAX_TEXT_BYTES = 1 << 30
"""Of one text of a recording, unpacked: more than the longest night has; a guard against a zip file that lies."""

MAX_WORKERS = 64
"""Of a replay's own system: one machine."""


class PixelKind(StrEnum):
    """How the pixels of a recording are kept."""

    SEED = "seed"
    """Not at all: they are simulated anew from the exposures' facts and the seed."""

    RICE = "rice"
    """As they were, losslessly compressed."""

    BINNED = "binned"
    """Means over squares, played with noise within each."""

    STAMPS = "stamps"
    """The brightest sources as they were; between them level and noise of each amp."""


SETTINGS = frozenset({"build_calibs", "wavefront_pairs"})
"""Role settings of a night beside those that are times, ``*_s`` and ``*_ms``. None says where anything lies."""


class NightSystem(BaseModel):
    """What a night is played through, if it is played through a system of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_workers: int = Field(default=2, ge=1, le=MAX_WORKERS)
    n_heads: int = Field(default=1, ge=1, le=4)
    n_gathers: int = Field(default=1, ge=1, le=4)
    max_open: int = Field(default=3, ge=1, description="Exposures in flight, when it goes as fast as possible.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Role settings other than the defaults.")
    pipelines: str = Field(default="", description="Pipelines of this night's own, YAML.")

    @field_validator("settings")
    @classmethod
    def _only_how(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name in settings:
            if name not in SETTINGS and not name.endswith(("_s", "_ms")):
                raise ValueError(f"{name} is none that a night may set: times, {', '.join(sorted(SETTINGS))}")
        return settings


class SlowJob(BaseModel):
    """A job that took long, and the step of it that took longest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    detector: str
    total_s: float
    step: str = ""
    step_s: float = 0.0


class Wait(BaseModel):
    """How long an exposure took, and what it waited for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    took_s: float = Field(description="From its last raw to the end of its last job [s].")
    alone_s: float = Field(description="What its own jobs take on as many workers with nothing else to do [s].")
    n_workers: int = Field(ge=1)
    others: tuple[int, ...] = Field(default=(), description="Exposures that the workers were busy with meanwhile.")


class Incident(BaseModel):
    """What a recording of an incident reproduces."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str = Field(description="Job, batch or exposure.")
    pipeline: str = ""
    errors: list[dict[str, Any]] = Field(
        default_factory=list, description="job_id, attempts, code, message, traceback."
    )
    calibs: dict[str, list[str]] = Field(default_factory=dict, description="Ids of calibs that were used, by kind.")
    seconds: dict[str, float] = Field(default_factory=dict, description="How long it took [s].")
    slowest: list[SlowJob] = Field(default_factory=list, description="The jobs that took longest, longest first.")
    wait: Wait | None = Field(default=None, description="Of an exposure that took much longer than its own jobs.")


class Manifest(BaseModel):
    """What a recording is of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["rapid-recording"] = FORMAT
    version: int = Field(default=VERSION, ge=1)
    camera: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Its name, and that of its definition's file."
    )
    camera_yaml: str = Field(default="", description="Definition of a camera that the release does not have.")
    title: str = ""
    story: str = Field(default="", description="What happens in this night and what it should show.")
    began_at: AwareDatetime = Field(description="When at_s = 0 was, UTC.")
    duration_s: float = Field(ge=0)
    seed: int = 1
    pixels: PixelKind = PixelKind.SEED
    is_exact: bool = Field(
        default=True, description="Whether a replay has the recorded pixels, so that its numbers can be compared."
    )
    binning: int = Field(default=8, ge=2, le=64, description="Of binned pixels.")
    software_version: str = ""
    system: NightSystem = NightSystem()
    incident: Incident | None = None
    settings: dict[str, Any] = Field(default_factory=dict, description="Role settings that it ran under.")
    header_order: tuple[str, ...] = ()
    loop_s: float | None = Field(
        default=None, gt=0, description="What the calibration loop took on the machine of the results [s]."
    )
    invariants: dict[str, list[str]] = Field(
        default_factory=dict, description="By invariant that was checked: what was wrong; nothing is well."
    )


class ResultTable(BaseModel):
    """What a pipeline measured on the detectors of one exposure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exposure: int
    pipeline: str
    run: str = "prompt"
    detectors: tuple[int, ...]
    metrics: dict[str, tuple[Scalar, ...]] = Field(description="A value for each detector.")


class SummaryFacts(BaseModel):
    """What became of one exposure under one pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exposure: int
    pipeline: str
    run: str = "prompt"
    image_type: str = ""
    n_versions: int = Field(default=1, ge=1)
    n_finished: int
    n_expected: int
    is_complete: bool
    not_finished: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="By state, the detectors that are not finished."
    )
    metrics: dict[str, Scalar] = Field(default_factory=dict)
    control: dict[str, Any] = Field(default_factory=dict)
    latency_s: float | None = Field(default=None, description="From the last raw to the newest summary [s].")


@dataclass
class Recording:
    """A recorded night in memory; pixels stay where they are."""

    manifest: Manifest
    events: list[NightEvent]
    headers: NightHeaders = field(default_factory=NightHeaders)
    exposures: dict[int, PlannedExposure] = field(default_factory=dict)
    results: list[ResultTable] = field(default_factory=list)
    summaries: list[SummaryFacts] = field(default_factory=list)
    source: Path | None = None
    """Where it was read from."""

    @property
    def n_raws(self) -> int:
        """How many raws arrive."""
        return sum(len(event.detectors) for event in self.events if isinstance(event, RawsEvent))

    def with_manifest(self, **changes: Any) -> "Recording":
        """Return the recording with some facts of its manifest changed."""
        facts = self.manifest.model_dump() | changes
        return Recording(
            Manifest.model_validate(facts),
            self.events,
            self.headers,
            self.exposures,
            self.results,
            self.summaries,
            self.source,
        )

    def camera(self) -> Camera:
        """Return the recorded camera.

        Raises
        ------
        NotFoundError
            Raised if neither the release nor the recording has its definition.
        """
        from rapid.camera.store import load_camera

        return load_camera(self.manifest.camera)


class _Files(Protocol):
    def read(self, name: str) -> bytes | None: ...

    def close(self) -> None: ...


class _FolderFiles:
    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes | None:
        path = self._root / name
        return path.read_bytes() if path.is_file() else None

    def close(self) -> None:
        """Nothing is open."""


class _ZipFiles:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def read(self, name: str) -> bytes | None:
        try:
            member = self._zip.getinfo(name)
        except KeyError:
            return None
        if member.file_size > MAX_TEXT_BYTES:
            raise ConfigurationError("recording", f"{name} is larger than {MAX_TEXT_BYTES} bytes")
        return self._zip.read(member)

    def close(self) -> None:
        self._zip.close()


def _open(path: Path) -> _Files:
    if path.is_dir():
        return _FolderFiles(path)
    try:
        return _ZipFiles(path)
    except FileNotFoundError as error:
        raise ConfigurationError("recording", f"{path} is not there") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigurationError("recording", f"{path} is neither a folder nor a zip file: {error}") from error


def _said(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _read_manifest(files: _Files, path: Path) -> Manifest:
    data = files.read(MANIFEST)
    if data is None:
        raise ConfigurationError("recording", f"{path} holds no {MANIFEST}")
    try:
        facts = json.loads(data)
    except ValueError as error:
        raise ConfigurationError(MANIFEST, f"is not JSON: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ConfigurationError(MANIFEST, f"{path} is no {FORMAT}")
    version = facts.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ConfigurationError(
            f"{MANIFEST}: version", f"is {version}; this release reads up to {VERSION}: play it with a newer one"
        )
    try:
        return Manifest.model_validate(facts)
    except ValidationError as error:
        raise ConfigurationError(MANIFEST, _said(error)) from error


def _lines(files: _Files, name: str, read: Callable[[str], Any]) -> Iterator[Any]:
    for number, line in enumerate((files.read(name) or b"").decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield read(line)
        except ValidationError as error:
            raise ConfigurationError(name, f"line {number}: {_said(error)}") from error


def read_recording(path: Path) -> Recording:
    """Read a recording, a folder or a zip file.

    Raises
    ------
    ConfigurationError
        Raised, naming file, line and field, for what is no recording, or one of a later version.
    """
    files = _open(path)
    try:
        manifest = _read_manifest(files, path)
        headers = (files.read("headers.txt") or b"").decode("ascii", "replace")
        exposures = _lines(files, "exposures.jsonl", PlannedExposure.model_validate_json)
        return Recording(
            manifest=manifest,
            events=sorted(_lines(files, "events.jsonl", EVENT.validate_json), key=lambda event: event.at_s),
            headers=NightHeaders.from_text(headers, manifest.header_order),
            exposures={exposure.exposure_id: exposure for exposure in exposures},
            results=list(_lines(files, "results.jsonl", ResultTable.model_validate_json)),
            summaries=list(_lines(files, "summaries.jsonl", SummaryFacts.model_validate_json)),
            source=path,
        )
    finally:
        files.close()


def read_pixels(recording: Recording, key: str) -> bytes | None:
    """Return a file of the recording's pixels, None if it has none such."""
    if recording.source is None:
        return None
    files = _open(recording.source)
    try:
        return files.read(f"{PIXELS}/{key}")
    finally:
        files.close()


def _texts(recording: Recording) -> Iterator[tuple[str, str]]:
    """Yield name and text of every file but the pixels."""

    def lines(models: Iterable[BaseModel]) -> str:
        return "".join(model.model_dump_json(exclude_defaults=True) + "\n" for model in models)

    # Read from an earlier version it may have got what that version did not know.
    manifest = recording.manifest.model_copy(
        update={"version": VERSION, "header_order": tuple(recording.headers.order)}
    )
    yield MANIFEST, manifest.model_dump_json(indent=1) + "\n"
    # The kind of an event is a default, and must be said all the same.
    yield (
        "events.jsonl",
        "".join(
            json.dumps({"at_s": event.at_s, "kind": event.kind} | event.model_dump(mode="json", exclude_defaults=True))
            + "\n"
            for event in sorted(recording.events, key=lambda event: event.at_s)
        ),
    )
    yield "headers.txt", recording.headers.to_text()
    yield "exposures.jsonl", lines(recording.exposures[number] for number in sorted(recording.exposures))
    if recording.results:
        yield "results.jsonl", lines(recording.results)
    if recording.summaries:
        yield "summaries.jsonl", lines(recording.summaries)


def write_recording(
    recording: Recording, path: Path, *, pixels: Iterable[tuple[str, bytes]] = (), overwrite: bool = False
) -> None:
    """Write a recording: as a zip file if its name ends so, else as a folder.

    Parameters
    ----------
    pixels
        Keys and bytes of the raws to keep.
    overwrite
        Replace a recording that is there; anything else is never touched.

    Raises
    ------
    ConfigurationError
        Raised if something is there, or nothing can be written there.
    """
    try:
        _write(recording, path, pixels, overwrite=overwrite)
    except OSError as error:
        raise ConfigurationError("recording", f"{path} cannot be written: {error.strerror}") from error


def _write(recording: Recording, path: Path, pixels: Iterable[tuple[str, bytes]], *, overwrite: bool) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        is_recording = path.suffix == ".zip" or (path / MANIFEST).exists()
        if not overwrite or not is_recording:
            raise ConfigurationError("recording", f"{path} is there already")
    temporary = path.with_name(f".{path.name}.part")
    if temporary.is_dir():
        shutil.rmtree(temporary)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        _write_zip(recording, temporary, pixels)
    else:
        for name, data in _contents(recording, pixels):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for other in path.iterdir() if path.is_dir() else ():
            # Of somebody's own, such as tolerances beside a golden set: it stays.
            if other.name not in FILES:
                other.replace(temporary / other.name)
        if path.is_dir():
            shutil.rmtree(path)
    temporary.replace(path)


def _contents(recording: Recording, pixels: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    for name, text in _texts(recording):
        yield name, text.encode()
    for key, data in pixels:
        yield f"{PIXELS}/{key}", data


def _write_zip(recording: Recording, path: Path, pixels: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in _contents(recording, pixels):
            # A fixed date: the same night gives the same file, whenever it is written.
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            # Compressed pixels do not get smaller.
            member.compress_type = zipfile.ZIP_STORED if name.startswith(f"{PIXELS}/") else zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
