"""Make a past incident a night that reproduces it: from a dead letter, or from an exposure that took too long.

The recording is minimal: of a job the one raw and what it needs, of an exposure or a gather its own raws. It begins with the
control state that the exposure was dispatched under, knows the pipeline that ran, and what came of it then is what a replay
is compared with: the same failure is a replay that is well.
"""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rapid.camera.models import Camera
from rapid.errors import NotFoundError
from rapid.pipeline.models import Pipeline, base_of
from rapid.pipeline.store import default_book, packaged_book
from rapid.requests.archive import RequestArchive
from rapid.requests.models import PROMPT, RequestRecord
from rapid.results.control_log import ControlLog
from rapid.results.models import DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore
from replay.asked import asked_again
from replay.dead_letters import dead_letters, errors_of
from replay.delivered import Delivered
from replay.events import ControlEvent, NightEvent, RawsEvent, SidecarEvent
from replay.queueing import JobRun, Span, count_workers, find_queue, has_waited, own_s
from replay.record import NightNotes, Recorder, control_difference
from replay.recording import MAX_WORKERS, Incident, NightSystem, Recording, ResultTable, SlowJob, SummaryFacts, Wait
from replay.seen import Seen, SeenRaw, SeenSensors, day_of, look_through
from replay.subject import Subject, parse_subject

MANY = 100_000

WHOLE = frozenset({"total_s", "cpu_s", "worker_s"})
"""Timings of a job that are of no step."""

N_SLOWEST = 5


def record_incident(
    text: str,
    *,
    camera: Camera,
    results: ResultsStore,
    raws: str,
    truth: Path | None = None,
    alone: bool = False,
) -> tuple[Recording, NightNotes]:
    """Return the recording of an incident, and what was seen of its raws.

    Parameters
    ----------
    text
        See `parse_subject`.
    raws
        The raw store.
    truth
        Folder in which a simulator left what it rendered.
    alone
        Leave out what it waited for.

    Raises
    ------
    ConfigurationError
        Raised if it is about nothing.
    NotFoundError
        Raised if the stores know nothing of it, or its raws are gone.
    """
    subject = parse_subject(text)
    if subject.detector is not None and subject.detector not in camera.by_id:
        raise NotFoundError("detector", str(subject.detector), f"{camera.name} has none such")
    failures = dead_letters(results, camera.name, subject)
    ended = [
        result
        for result in results.results(subject.exposure, camera=camera.name, detector=subject.detector, run=subject.run)
        if subject.is_of(result.pipeline)
    ]
    # Others came of the same exposure later, for campaigns and requests.
    versions = [one for one in results.summary_versions(camera.name, subject.exposure) if one.run == subject.run]
    if not failures and not ended and not versions:
        raise NotFoundError("incident", text, f"the results store of {camera.name} knows nothing of it")
    request = _request(subject, camera, results) if subject.is_asked_for else None
    combined = request.members if request is not None and request.spec is not None and request.spec.combine else ()
    days = sorted({day_of(exposure) for exposure in (subject.exposure, *combined)})
    every = [one for day_obs in days for one in look_through(raws, camera=camera, day_obs=day_obs)]
    # A request comes when somebody asks, perhaps days later.
    is_alone = alone or subject.detector is not None or request is not None
    wait = None if is_alone else _wait(subject.exposure, camera, results, every)
    others = combined if wait is None else wait.others
    seen = _seen(subject, camera, raws, every, others)
    # What was in force is told by the exposure itself: the board's clock may have been moved since.
    night = Recorder(camera, results).record(seen, truth=truth, title=f"incident {text}", is_timed=False)
    night.events = list(_events(night.events, _control(camera, results, versions, seen)))
    if request is not None:
        name = camera.by_id[subject.detector].name if subject.detector is not None else ""
        night.events.append(asked_again(request, subject.exposure, name, at_s=night.manifest.duration_s))
    incident = Incident(
        subject=text,
        pipeline=subject.pipeline or (failures[0]["pipeline"] if failures else ended[0].pipeline if ended else ""),
        errors=errors_of(failures),
        calibs=_calibs(subject, ended, camera, results, seen),
        seconds=_seconds(versions, subject, ended),
        slowest=slowest_jobs(ended),
        wait=wait,
    )
    system = NightSystem(pipelines=_definitions(incident.pipeline, seen, is_chosen=request is None))
    if wait is not None:
        # As fast as possible is as many at once.
        system = system.model_copy(update={"n_workers": wait.n_workers, "max_open": len(others) + 1})
    found = night.with_manifest(
        incident=incident.model_dump(),
        story=_story(text, incident),
        system=system.model_dump(),
        software_version=next((result.provenance.software_version for result in ended), ""),
    )
    found.events = night.events
    found.results = [table for table in (_table(one, subject) for one in night.results) if table is not None]
    found.summaries = [one for one in (_summary(summary, subject) for summary in night.summaries) if one is not None]
    return found, seen


def _request(subject: Subject, camera: Camera, results: ResultsStore) -> RequestRecord:
    """Return the request that a run was of."""
    record = RequestArchive(results.engine).by_run(camera.name, subject.run)
    if record is None or record.spec is None:
        raise NotFoundError(
            "request", subject.run, f"the results store of {camera.name} no longer tells what was asked for"
        )
    return record


def _seen(subject: Subject, camera: Camera, raws: str, every: Sequence[Seen], others: Sequence[int]) -> NightNotes:
    """Return what lies in the raw store of the incident: one raw, an exposure's, those that a build combines; and others."""
    wanted = {subject.exposure, *others}
    name = None if subject.detector is None else camera.by_id[subject.detector].name
    if subject.is_build:
        groups = {one.exposure: one.info.group_id for one in every if isinstance(one, SeenRaw) and one.info is not None}
        group = groups.get(subject.exposure)
        wanted |= {exposure for exposure, other in groups.items() if group is not None and other == group}
    notes = NightNotes()
    for one in every:
        if one.exposure not in wanted:
            continue
        if isinstance(one, SeenSensors):
            # Nobody waits for the others: they are not part of it.
            notes.take(SeenSensors(one.exposure, one.detectors if name is None else (name,), one.at_s))
        elif name in {None, one.detector}:
            notes.take(one)
    if not any(raw.exposure == subject.exposure for raw in notes.raws):
        raise NotFoundError("raw", subject.name, f"nothing of it lies in {raws}")
    return notes


def _wait(exposure: int, camera: Camera, results: ResultsStore, every: Iterable[Seen]) -> Wait | None:
    """Return how long an exposure took and what it waited for; None if it did not wait."""
    times: dict[int, list[float]] = {}
    for one in every:
        if isinstance(one, SeenRaw):
            times.setdefault(one.exposure, []).append(one.at_s)
    jobs = {exposure: _runs(results.results(exposure, camera=camera.name, run=PROMPT))}
    if exposure not in times or not jobs[exposure]:
        return None
    ends_s = {
        summary.exposure: summary.gathered_at.timestamp()
        for summary in results.summaries(camera.name, day_obs=day_of(exposure), limit=MANY)
        if summary.gathered_at is not None
    }
    ends_s[exposure] = max(job.end_s for job in jobs[exposure])
    spans = {number: Span(min(at), max(at), ends_s[number]) for number, at in times.items() if number in ends_s}
    others = find_queue(exposure, spans)
    for other in others:
        jobs[other] = _runs(results.results(other, camera=camera.name, run=PROMPT))
    n_workers = min(count_workers(run for runs in jobs.values() for run in runs), MAX_WORKERS)
    took_s, alone_s = spans[exposure].took_s, own_s(jobs[exposure], n_workers)
    if not others or not has_waited(took_s, alone_s):
        return None
    return Wait(took_s=round(took_s, 3), alone_s=round(alone_s, 3), n_workers=n_workers, others=others)


def _runs(ended: Iterable[DetectorResult]) -> list[JobRun]:
    runs = []
    for result in ended:
        if result.finished_at is not None:
            end_s = result.finished_at.timestamp()
            runs.append(JobRun(end_s - result.timings.get("total_s", 0.0), end_s))
    return runs


def wait_again(was: Wait, ended: Iterable[DetectorResult], last_raw_s: float) -> Wait:
    """Return how long an exposure took in a replay, beside what it took then."""
    runs = _runs(ended)
    took_s = max((run.end_s for run in runs), default=last_raw_s) - last_raw_s
    alone_s = own_s(runs, was.n_workers)
    return was.model_copy(update={"took_s": round(max(took_s, 0.0), 3), "alone_s": round(alone_s, 3)})


def incident_again(
    was: Incident, camera: str, results: ResultsStore, delivered: Delivered, *, run: str = ""
) -> Incident:
    """Return what came of an incident in a replay, beside what it was.

    Parameters
    ----------
    run
        That of its request, if it has one: another than then.
    """
    subject = parse_subject(was.subject)
    ended = [one for exposure in delivered.raws for one in results.results(exposure, camera=camera, run=run or PROMPT)]
    now: dict[str, Any] = {"slowest": slowest_jobs(ended)}
    now["errors"] = errors_of(dead_letters(results, camera, subject, run=run))
    if was.wait is not None:
        mine = [one for one in ended if one.exposure == subject.exposure]
        now["wait"] = wait_again(was.wait, mine, delivered.last_raw_s.get(subject.exposure, 0.0))
        now["slowest"] = slowest_jobs(mine)
    return was.model_copy(update=now)


def _control(
    camera: Camera, results: ResultsStore, versions: Iterable[ExposureSummary], seen: NightNotes
) -> ControlEvent | None:
    """Return the change that leads to the control state under which the exposure was dispatched."""
    known = {summary.control.get("version") for summary in versions if summary.control}
    first_ms = min(raw.at_s for raw in seen.raws) * 1000
    for record in ControlLog(results.engine).changes(camera.name, limit=MANY):  # the newest first
        # Without a summary only the time tells.
        if record.version in known or (not known and record.changed_ms <= first_ms):
            change = control_difference({}, record.state)
            by, door = record.changed_by, record.door
            return ControlEvent(at_s=0.0, change=change, by=by, door=door, reason=record.reason) if change else None
    return None


def _events(events: Sequence[NightEvent], control: ControlEvent | None) -> Iterable[NightEvent]:
    """Keep what the incident needs: arrivals, the control state it was dispatched under, what was switched off."""
    if control is not None:
        yield control
    for event in events:
        if isinstance(event, RawsEvent | SidecarEvent) or event.kind == "exclusion":
            yield event


def _calibs(
    subject: Subject, ended: list[DetectorResult], camera: Camera, results: ResultsStore, seen: NightNotes
) -> dict[str, list[str]]:
    """Return ids of calibs by kind: those that results used, else those that a look-up would have found."""
    found: dict[str, set[str]] = {}
    for result in ended:
        for kind, calib_id in result.provenance.calibs.items():
            found.setdefault(kind, set()).add(calib_id)
    if not found:
        begins = [raw.info.begin for raw in seen.raws if raw.exposure == subject.exposure and raw.info is not None]
        at = next((begin for begin in begins if begin is not None), None)
        for record in (
            results.calibs(camera.name, detector=subject.detector, at=at, limit=MANY) if at is not None else []
        ):
            # The preferred one comes first.
            found.setdefault(record.kind, {record.calib_id})
    return {kind: sorted(ids) for kind, ids in sorted(found.items())}


def slowest_jobs(ended: Iterable[DetectorResult]) -> list[SlowJob]:
    """Return the jobs that took longest, longest first."""
    jobs = []
    for result in ended:
        steps = {name: took_s for name, took_s in result.timings.items() if name not in WHOLE}
        step = max(steps, key=lambda name: steps[name], default="")
        jobs.append(
            SlowJob(
                pipeline=result.pipeline,
                detector=result.detector_name,
                total_s=round(result.timings.get("total_s", 0.0), 3),
                step=step.removesuffix("_s"),
                step_s=round(steps.get(step, 0.0), 3),
            )
        )
    return sorted(jobs, key=lambda job: -job.total_s)[:N_SLOWEST]


def _seconds(
    versions: Iterable[ExposureSummary], subject: Subject, ended: Sequence[DetectorResult]
) -> dict[str, float]:
    """Return how long the exposure took, from its first summary to its last, and what one of its jobs took."""
    mine = [one for one in versions if subject.pipeline in {None, one.pipeline} and one.gathered_at is not None]
    times = sorted(one.gathered_at.timestamp() for one in mine if one.gathered_at is not None)
    found = {"first_to_last_summary_s": round(times[-1] - times[0], 3)} if times else {}
    took = [result.timings["total_s"] for result in ended if "total_s" in result.timings]
    return found | ({"median_job_s": round(statistics.median(took), 3)} if took else {})


def _story(text: str, incident: Incident) -> str:
    if incident.errors:
        first = incident.errors[0]
        story = f"{text} failed with {first['code']} after {first['attempts']} attempts: {first['message']}"
    else:
        story = f"{text} as it was processed; made to look into why it took so long."
    if (wait := incident.wait) is not None:
        many = "exposure" if len(wait.others) == 1 else "exposures"
        workers = "worker" if wait.n_workers == 1 else "workers"
        story = (
            f"{story.rstrip('.')}. It took {wait.took_s:g} s from its last raw, its own jobs {wait.alone_s:g} s on "
            f"{wait.n_workers} {workers}: it waited for {len(wait.others)} other {many}."
        )
    if not incident.slowest:
        return story
    job, median_s = incident.slowest[0], incident.seconds.get("median_job_s", 0.0)
    return (
        f"{story.rstrip('.')}. Its slowest job, {job.detector} under {job.pipeline}, took {job.total_s:g} s, of which "
        f"{job.step} {job.step_s:g} s; half of its jobs took {median_s:g} s at most."
    )


def _definitions(name: str, seen: NightNotes, *, is_chosen: bool) -> str:
    """Return the definition of the pipeline that ran, if it is not the packaged one, and the rule that chooses it."""
    name = base_of(name) or name  # an afterburner is a part of it
    pipeline: Pipeline | None = default_book().get(name) if name else None
    if pipeline is None or pipeline == packaged_book().get(name):
        return ""
    document: dict[str, Any] = {"pipelines": [pipeline.model_dump(mode="json")]}
    types = sorted({raw.info.image_type.value for raw in seen.raws if raw.info is not None})
    if is_chosen and pipeline.builds is None and types:
        document["rules"] = [{"pipeline": name, "image_types": types}]
    return yaml.safe_dump(document, sort_keys=False)


def _table(table: ResultTable, subject: Subject) -> ResultTable | None:
    if table.exposure != subject.exposure and not subject.is_build:
        return None  # it only stood in the way
    if not subject.is_of(table.pipeline) or table.run != subject.run:
        return None
    if subject.detector is None:
        return table
    places = [place for place, detector in enumerate(table.detectors) if detector == subject.detector]
    if not places:
        return None
    return table.model_copy(
        update={
            "detectors": (subject.detector,),
            "metrics": {metric: (values[places[0]],) for metric, values in table.metrics.items()},
        }
    )


def _summary(summary: SummaryFacts, subject: Subject) -> SummaryFacts | None:
    if summary.run != subject.run:
        return None
    if summary.exposure != subject.exposure and not subject.is_build:
        return summary.model_copy(update={"metrics": {}, "latency_s": None})
    if not subject.is_of(summary.pipeline):
        return None
    if subject.detector is None:
        return summary
    mine = {
        state: (subject.detector,) for state, numbers in summary.not_finished.items() if subject.detector in numbers
    }
    n_finished = int(not mine)
    # Numbers of the whole focal plane are those of other detectors too.
    return summary.model_copy(
        update={
            "n_finished": n_finished,
            "n_expected": 1,
            "is_complete": bool(n_finished),
            "not_finished": mine,
            "metrics": {},
            "latency_s": None,
        }
    )
