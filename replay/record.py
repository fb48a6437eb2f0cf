"""Turn a running system's real night into a recording: live, or afterwards from the stores.

What arrived is seen at the raw store, what was asked for and changed is read from the results store, where everything
is kept; what only the board tells (workers that came and went, jobs that were taken back) is heard from its events.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rapid.arrival.source import read_raw
from rapid.camera.models import Camera
from rapid.control.models import ControlState
from rapid.dispatch.models import Event, EventKind
from rapid.errors import ConfigurationError, RapidError
from rapid.exclusions.store import ExclusionStore
from rapid.exposure.naming import raw_key
from rapid.requests.archive import RequestArchive
from rapid.requests.models import RequestState
from rapid.results.control_log import ControlLog
from rapid.results.store import ResultsStore
from replay.announced import LEAD_S, SeenVisit, visit_events, visits_of_night
from replay.events import (
    CancelEvent,
    ControlEvent,
    ExclusionEvent,
    NightEvent,
    NoteEvent,
    RawsEvent,
    RequestEvent,
    SidecarEvent,
)
from replay.headers import NightHeaders, RawFacts
from replay.keep import keep
from replay.night_time import SAME_S, NightTime
from replay.outcome import read_outcome
from replay.plan import PlannedExposure
from replay.recording import Manifest, PixelKind, Recording, write_recording
from replay.regenerate import exposure_of_info
from replay.seen import Seen, SeenRaw, SeenSensors, day_of, look_through
from replay.simulate import read_truth

NOTED = frozenset(
    {
        EventKind.JOB_FAILED,
        EventKind.JOB_RETURNED,
        EventKind.RAW_QUARANTINED,
        EventKind.CALIB_CERTIFIED,
        EventKind.WORKER_JOINED,
        EventKind.WORKER_LEFT,
        EventKind.SUMMARY_READY,
    }
)
"""What is kept of the board's events: what happened to the system, not each of two hundred thousand jobs."""

MANY = 100_000

NOT_TOLD_S = 60.0
"""A night may begin so long before the first word of the board: it is told of a raw soon after it has come."""


@dataclass
class NightNotes:
    """Everything that was seen of a night."""

    raws: list[SeenRaw] = field(default_factory=list)
    sensors: list[SeenSensors] = field(default_factory=list)
    notes: list[Event] = field(default_factory=list)
    visits: list[SeenVisit] = field(default_factory=list)
    times: NightTime = field(default_factory=NightTime)
    """Of the board's clock, if it was heard."""

    def take(self, seen: Seen) -> None:
        """Note an arrival."""
        if isinstance(seen, SeenRaw):
            self.raws.append(seen)
        else:
            self.sensors.append(seen)

    def hear(self, events: Iterable[Event]) -> None:
        """Note what the board told, and when by its clock and by ours."""
        events = list(events)
        for event in events:
            written_ms = event.event_id.partition("-")[0]
            if written_ms.isdecimal():
                self.times.note(float(written_ms), event.at_ms)
        self.notes += [event for event in events if event.kind in NOTED]

    @property
    def last_raw_s(self) -> dict[int, float]:
        """By exposure, when its last raw arrived [s since the epoch]."""
        found: dict[int, float] = {}
        for raw in self.raws:
            found[raw.exposure] = max(raw.at_s, found.get(raw.exposure, 0.0))
        return found


class Recorder:
    """Makes recordings of what a results store knows.

    Parameters
    ----------
    results
        Of the system that is recorded.
    """

    def __init__(self, camera: Camera, results: ResultsStore) -> None:
        self._camera = camera
        self._results = results

    def record(
        self,
        seen: NightNotes,
        *,
        truth: Path | None = None,
        title: str = "",
        settings: Mapping[str, Any] | None = None,
        is_timed: bool = True,
    ) -> Recording:
        """Return the recording of what was seen, with what the stores tell of the same time.

        Parameters
        ----------
        truth
            Folder in which a simulator left what it rendered: pixels can then be made again exactly.
        is_timed
            Whether it matters when things were changed and asked for.

        Raises
        ------
        ConfigurationError
            Raised if no raw was seen.
        """
        if not any(raw.info for raw in seen.raws):
            raise ConfigurationError("raws", "none was seen that could be read: there is nothing to record")
        times = seen.times
        times_s = [raw.at_s for raw in seen.raws] + [sensors.at_s for sensors in seen.sensors]
        first_s, last_s = min(times_s), max(times_s)
        if is_timed:
            self._check_times(times, first_s, {raw.exposure for raw in seen.raws})
        visits = visits_of_night(seen.visits, first_s, last_s)
        first_s = min([first_s, *(one.at_s for one in visits if one.at_s >= first_s - LEAD_S)])
        begin_s = times.board_s(first_s)
        ids = {raw.exposure for raw in seen.raws}
        tables, summaries = read_outcome(self._results, self._camera.name, ids, last_raw_s=seen.last_raw_s)
        events = [
            *self._arrivals(seen, begin_s),
            *self._controls(begin_s),
            *self._requests(begin_s, {day_of(exposure) for exposure in ids}, times),
            *self._exclusions(first_s, last_s, times),
            *visit_events(visits, times, begin_s),
            *self._notes(seen.notes, begin_s),
        ]
        events.sort(key=lambda event: event.at_s)
        truths, seed = read_truth(truth) if truth is not None else ({}, None)
        headers = NightHeaders.of(
            RawFacts(raw.exposure, raw.info.obs_id, raw.detector, _values(raw.header)) for raw in seen.raws if raw.info
        )
        return Recording(
            manifest=Manifest(
                camera=self._camera.name,
                title=title,
                began_at=datetime.fromtimestamp(first_s, UTC),
                duration_s=round(max(event.at_s for event in events), 3),
                seed=1 if seed is None else seed,
                is_exact=ids <= truths.keys(),
                settings=dict(settings or {}),
            ),
            events=events,
            headers=headers,
            exposures=self._exposures(seen, truths),
            results=tables,
            summaries=summaries,
        )

    def _check_times(self, times: NightTime, first_s: float, exposures: Iterable[int]) -> None:
        """Refuse a night whose times cannot be told.

        Raises
        ------
        ConfigurationError
            Raised if the board's clock ran at another pace than ours, and what it said during the night is not known.
        """
        if times.is_moved:
            if times.begins_s > first_s + NOT_TOLD_S:
                since = datetime.fromtimestamp(times.begins_s, UTC)
                raise ConfigurationError(
                    "redis",
                    f"the board's clock was moved, and what it tells goes back to {since:%Y-%m-%d %H:%M:%S} only, after the "
                    "night's first raw: when things were changed and asked for cannot be told",
                )
            return
        changed_s = {
            record.version: record.changed_ms / 1000
            for record in ControlLog(self._results.engine).changes(self._camera.name, limit=MANY)
        }
        if any(at_s > before_s + SAME_S for at_s, before_s in self._in_force(changed_s, exposures)):
            raise ConfigurationError(
                "redis",
                "a control change is dated after a summary that was made under it: the board's clock was not ours; say where "
                "it is, --redis URL",
            )

    def _in_force(self, changed_s: Mapping[int, float], exposures: Iterable[int]) -> Iterator[tuple[float, float]]:
        """Yield when control changes were made by the board's clock, and when by ours they must have been."""
        if not changed_s:
            return
        yield max(changed_s.values()), datetime.now(UTC).timestamp()
        for exposure in exposures:
            for summary in self._results.summary_versions(self._camera.name, exposure):
                at_s = changed_s.get(summary.control.get("version", 0))
                if at_s is not None and summary.gathered_at is not None:
                    yield at_s, summary.gathered_at.timestamp()

    def _at(self, board_ms: float, begin_s: float) -> float:
        """Return a time of the board's clock, since the night's first event; before it is at it."""
        return round(max(board_ms / 1000 - begin_s, 0.0), 3)

    def _arrivals(self, seen: NightNotes, begin_s: float) -> Iterator[NightEvent]:
        board_s = seen.times.board_s
        for sensors in seen.sensors:
            at_s = round(max(board_s(sensors.at_s) - begin_s, 0.0), 3)
            yield SidecarEvent(at_s=at_s, exposure=sensors.exposure, detectors=sensors.detectors)
        by_exposure: dict[int, list[SeenRaw]] = {}
        for raw in sorted(seen.raws, key=lambda raw: (raw.at_s, raw.detector)):
            by_exposure.setdefault(raw.exposure, []).append(raw)
        for exposure, raws in by_exposure.items():
            first_s = board_s(raws[0].at_s)
            yield RawsEvent(
                at_s=round(max(first_s - begin_s, 0.0), 3),
                exposure=exposure,
                detectors=tuple(raw.detector for raw in raws),
                after_ms=tuple(round((board_s(raw.at_s) - first_s) * 1000) for raw in raws),
                quarantined={raw.detector: raw.problem for raw in raws if raw.problem},
            )

    def _controls(self, begin_s: float) -> Iterator[NightEvent]:
        """Yield the changes of the night, and first of all the state that it began with."""
        last: Mapping[str, Any] = {}
        before: ControlEvent | None = None
        for record in ControlLog(self._results.engine).changes(self._camera.name, limit=MANY)[::-1]:
            is_before = record.changed_ms / 1000 < begin_s
            change = control_difference({} if is_before else last, record.state)
            last = record.state
            event = ControlEvent(
                at_s=self._at(record.changed_ms, begin_s),
                change=change,
                by=record.changed_by,
                door=record.door,
                reason=record.reason,
            )
            if is_before:
                before = event
                continue
            if before is not None:
                yield before
                before = None
            if change:
                yield event
        if before is not None and before.change:
            yield before

    def _requests(self, begin_s: float, days: set[int], times: NightTime) -> Iterator[NightEvent]:
        for record in RequestArchive(self._results.engine).recent(self._camera.name, MANY):
            is_of_night = any(day_of(member) in days for member in record.members)
            # A request's id is its place in a stream: the server's own time, however fast the night goes.
            created_s = times.board_s(record.created_ms / 1000)
            if record.spec is None or not (is_of_night or created_s >= begin_s):
                continue
            yield RequestEvent(
                at_s=self._at(created_s * 1000, begin_s),
                request_id=record.request_id,
                spec=record.spec.model_dump(mode="json", exclude_defaults=True),
                by=record.asked_by,
                door=record.source,
                ended=record.state.value if record.state.is_final else "",
                run=record.run,
            )
            if record.state is RequestState.CANCELLED and record.finished_ms is not None:
                at_s = self._at(record.finished_ms, begin_s)
                yield CancelEvent(at_s=at_s, request_id=record.request_id, by=record.asked_by)

    def _exclusions(self, first_s: float, last_s: float, times: NightTime) -> Iterator[NightEvent]:
        for found in ExclusionStore(self._results.engine).history(self._camera.name):
            is_over = found.valid_to is not None and found.valid_to.timestamp() <= first_s
            created_s = found.created_at.timestamp()
            if found.is_undone or is_over or created_s > last_s:
                continue
            yield ExclusionEvent(
                at_s=self._at(times.board_s(created_s) * 1000, times.board_s(first_s)),
                detector=found.detector_name,
                amp=found.amp or "",
                reason=found.reason,
                author=found.author,
                valid_from=found.valid_from,
                valid_to=found.valid_to,
            )

    def _notes(self, notes: Iterable[Event], begin_s: float) -> Iterator[NightEvent]:
        for note in notes:
            data = {name: value for name, value in note.data.items() if isinstance(value, str | int | float | bool)}
            if note.detector is not None:
                data["detector"] = note.detector
            yield NoteEvent(
                at_s=self._at(note.at_ms, begin_s), name=note.kind.value, exposure=note.exposure_id, data=data
            )

    def _exposures(self, seen: NightNotes, truths: Mapping[int, PlannedExposure]) -> dict[int, PlannedExposure]:
        read_out: dict[int, set[str]] = {sensors.exposure: set(sensors.detectors) for sensors in seen.sensors}
        for raw in seen.raws:
            read_out.setdefault(raw.exposure, set()).add(raw.detector)
        exposures: dict[int, PlannedExposure] = {}
        for raw in seen.raws:
            if raw.exposure in exposures:
                continue
            if raw.exposure in truths:
                exposures[raw.exposure] = truths[raw.exposure]
            elif raw.info is not None and raw.info.begin is not None:
                known = (self._camera.by_name.get(name) for name in read_out[raw.exposure])
                numbers = tuple(sorted(detector.id for detector in known if detector is not None))
                exposures[raw.exposure] = exposure_of_info(raw.info, numbers, self._camera)
        return exposures


def control_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return a patch that leads from one control state to another; empty if this release cannot read them."""
    try:
        old = ControlState.model_validate(dict(before)).model_dump(mode="json")
        new = ControlState.model_validate(dict(after)).model_dump(mode="json")
    except ValidationError:
        return {}
    return _patch(old, new)


def _patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            if inner := _patch(before, after):
                patch[name] = inner
        elif before != after:
            patch[name] = after
    return patch


def _values(header: Mapping[str, Any]) -> dict[str, str | int | float | bool | None]:
    return {key: value for key, value in header.items() if isinstance(value, str | int | float | bool | None)}


def see_stored(url: str, *, camera: Camera, day_obs: int) -> NightNotes:
    """Return what lies in a raw store of one day.

    Raises
    ------
    ConfigurationError
        Raised if there is nothing of that day.
    """
    notes = NightNotes()
    for seen in look_through(url, camera=camera, day_obs=day_obs):
        if day_of(seen.exposure) == day_obs:
            notes.take(seen)
    if not notes.raws:
        raise ConfigurationError("raws", f"nothing of {day_obs} lies in {url}")
    return notes


def kept_pixels(seen: NightNotes, camera: Camera, kind: PixelKind, *, binning: int) -> Iterator[tuple[str, bytes]]:
    """Yield key and content of every raw whose pixels are to be kept."""
    for raw in seen.raws:
        if raw.info is None or raw.problem or raw.detector not in camera.by_name or raw.info.is_guider:
            continue
        try:
            data = keep(kind.value, read_raw(raw.uri), camera.by_name[raw.detector], binning=binning)
        except RapidError as error:
            raise ConfigurationError("pixels", f"{raw.uri}: {error}") from error
        yield raw_key(camera.name, raw.info.obs_id, raw.detector), data


def save(
    recording: Recording,
    seen: NightNotes,
    camera: Camera,
    out: Path,
    *,
    pixels: PixelKind = PixelKind.SEED,
    binning: int = 8,
    overwrite: bool = False,
) -> Recording:
    """Write a recording with its pixels, and return it as it was written."""
    # Kept whole they are what they were; simulated anew, if the simulator's truth is known.
    is_exact = pixels is PixelKind.RICE or (pixels is PixelKind.SEED and recording.manifest.is_exact)
    recording = recording.with_manifest(pixels=pixels, binning=binning, is_exact=is_exact)
    content = () if pixels is PixelKind.SEED else kept_pixels(seen, camera, pixels, binning=binning)
    write_recording(recording, out, pixels=content, overwrite=overwrite)
    return recording
