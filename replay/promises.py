"""Ask a system, after a night, whether it kept what the invariants promise; by their numbers.

The questions of stores and board are those of `replay.invariants`; here are those that events and summaries answer. I5
(newest first) and I8 (one head leads) are asked of the order in which jobs were started and exposures posted.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import redis

from rapid.dispatch import keys
from rapid.dispatch.models import BatchKey, Event, EventKind
from rapid.results.models import DetectorState, ExposureSummary
from rapid.results.store import ResultsStore
from replay.delivered import Delivered
from replay.invariants import RUN, Accountant, is_build, one_each

SLACK_MS = 15_000
"""Of the board's clock: how long an older exposure's job may still be begun after a newer exposure's was queued. A job
waits a second and a half for the worker that has its calibs, and several short ones are taken in one go."""

OTHER_KEYS = ("RUBINTV_", "LSSTCam-FROM-OCS", "-FROM-OCS_")
"""What else lies in our Redis: lists and readbacks that other programs gave their names."""


@dataclass
class Started:
    """What the board's events told of the jobs of a night."""

    posted_ms: dict[str, int] = field(default_factory=dict)
    reposted: list[tuple[str, int]] = field(default_factory=list)
    """Batches that the board took for new once more, and how long after the first time [ms]."""

    starts: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    redone: list[tuple[str, int]] = field(default_factory=list)
    """Jobs that were begun again after they were done, and how long after [ms]."""

    lost: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Take in an event."""
        if event.kind is EventKind.EXPOSURE_POSTED and event.batch_id:
            if event.batch_id in self.posted_ms:
                self.reposted.append((event.batch_id, event.at_ms - self.posted_ms[event.batch_id]))
            self.posted_ms.setdefault(event.batch_id, event.at_ms)
        if event.kind is EventKind.WORKER_LEFT and "no sign of life" in str(event.data.get("reason")):
            self.lost.append(str(event.data.get("worker")))
        if event.batch_id is None or event.detector is None:
            return
        job = (event.batch_id, event.detector)
        if event.kind is EventKind.JOB_STARTED:
            if job in self.ends:
                self.redone.append((f"{event.batch_id} detector {event.detector}", event.at_ms - self.ends[job]))
            self.starts.setdefault(job, []).append(event.at_ms)
        elif event.kind is EventKind.JOB_FINISHED:
            self.ends.setdefault(job, event.at_ms)


def check_promises(
    *,
    camera: str,
    accountant: Accountant,
    delivered: Delivered,
    results: ResultsStore,
    heard: Started,
    redis_url: str,
    has_faults: bool = False,
    forgot_ms: int = 0,
    plots_until_s: float = math.inf,
) -> dict[str, list[str]]:
    """Return what is wrong, by invariant; an empty list means that it was looked at and holds.

    Parameters
    ----------
    has_faults
        Things went wrong on purpose: workers may be lost then.
    forgot_ms
        How much the board's server may have forgotten, in a power cut: what ended that short a time ago may be begun
        again before the head has told the board that it is done, and what was posted be posted again.
    plots_until_s
        Plots that were written later may still be in hand [s since the epoch].
    """
    versions = [one for exposure in delivered.raws for one in results.summary_versions(camera, exposure)]
    found: dict[str, Iterable[str]] = {
        "I1": [*accountant.unsettled(), *accountant.unaccounted()],
        "I2": (f"{job} was begun again after it was done" for job, after_ms in heard.redone if after_ms > forgot_ms),
        "I3": accountant.wrong_products(until_s=plots_until_s),
        "I4": [*accountant.wrong_batches(may_forget=forgot_ms > 0), *accountant.wrong_summaries()],
        "I5": late_starts(heard),
        "I6": unknown_keys(redis_url, camera),
        "I8": (f"{batch} was posted as new once more" for batch, after_ms in heard.reposted if after_ms > forgot_ms),
        "I9": changed_controls(versions),
        "I10": inconsistent(versions),
    }
    if not has_faults:
        found["I7"] = (f"worker {worker} was given up, though nothing happened to it" for worker in heard.lost)
    return {name: one_each(problems) for name, problems in sorted(found.items(), key=lambda item: int(item[0][1:]))}


def late_starts(heard: Started) -> Iterator[str]:
    """I5: of the jobs of one pipeline, none of an older exposure is begun while one of a newer has waited for long."""
    by_pipeline: dict[str, list[tuple[int, int, str, int]]] = {}
    for (batch, detector), starts in heard.starts.items():
        key = BatchKey.parse(batch)
        if key.run == RUN and batch in heard.posted_ms and not is_build(key.pipeline):
            by_pipeline.setdefault(key.pipeline, []).append((starts[0], key.exposure_id, batch, detector))
    for started in by_pipeline.values():
        started.sort()
        # Of each exposure, the first start that came long after it was posted: until then something of it may wait.
        for place, (at_ms, exposure, batch, detector) in enumerate(started):
            for later_ms, newer, newer_batch, _ in started[place + 1 : place + 400]:
                waited_ms = at_ms - heard.posted_ms[newer_batch]
                # Raws that come late are queued late: only exposures of which something had been begun by then, so that
                # the rest of them was there too.
                if newer > exposure and waited_ms > SLACK_MS and later_ms > at_ms and _was_begun(started, newer, at_ms):
                    yield (
                        f"{batch} detector {detector} was begun {waited_ms / 1000:.1f} s after the newer {newer_batch} "
                        "was posted, of which jobs waited"
                    )
                    break


def _was_begun(started: list[tuple[int, int, str, int]], exposure: int, before_ms: int) -> bool:
    return any(other == exposure and at_ms < before_ms for at_ms, other, _, _ in started)


def unknown_keys(url: str, camera: str) -> Iterator[str]:
    """I6: every key on the board is one that the table of keys knows, and so has an end."""
    prefix = keys.prefix(camera)
    with redis.Redis.from_url(url) as client:
        for raw in client.scan_iter(count=1000):
            name = raw.decode(errors="replace")
            if not name.startswith(prefix):
                if not any(word in name for word in OTHER_KEYS):
                    yield f"key {name} is not of our instrument"
            elif keys.find_key(name.removeprefix(prefix)) is None:
                yield f"key {name} is in no table"


def changed_controls(versions: Iterable[ExposureSummary]) -> Iterator[str]:
    """I9: an exposure records the control state that it was dispatched under, and keeps it."""
    first: dict[tuple[int, str], object] = {}
    for summary in sorted(versions, key=lambda one: (one.exposure, one.pipeline, one.version)):
        if summary.run != RUN or is_build(summary.pipeline):
            continue
        if "version" not in summary.control:
            yield f"{summary.exposure} {summary.pipeline}: its summary tells no control state"
            continue
        said = first.setdefault((summary.exposure, summary.pipeline), summary.control)
        if said != summary.control:
            yield f"{summary.exposure} {summary.pipeline}: its control state changed with version {summary.version}"


def inconsistent(versions: Iterable[ExposureSummary]) -> Iterator[str]:
    """I10: a summary counts what it lists, and says why what is missing is."""
    for summary in versions:
        name = f"{summary.exposure} {summary.pipeline} version {summary.version}"
        finished = [n for n, status in summary.detectors.items() if status.state is DetectorState.FINISHED]
        aside = {DetectorState.EXCLUDED, DetectorState.SUPERSEDED}
        n_expected = sum(status.state not in aside for status in summary.detectors.values())
        if len(finished) != summary.n_finished or n_expected != summary.n_expected:
            yield (
                f"{name} says {summary.n_finished} of {summary.n_expected}, but lists {len(finished)} of {n_expected}"
            )
        for number, status in sorted(summary.detectors.items()):
            is_open = status.state not in {DetectorState.FINISHED, DetectorState.RUNNING}
            if is_open and not status.reason:
                yield f"{name}: detector {number} is {status.state.value}, and nobody says why"
