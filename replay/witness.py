"""Hears what the board tells, through every outage of it, and keeps what the report needs."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, Event, EventKind
from rapid.errors import StoreError
from rapid.exposure.formats import parse_name


class Milestone(NamedTuple):
    """How far an exposure has come: posted, result, summary, complete, or a raw of it quarantined.

    Attributes
    ----------
    of
        Under which pipeline; of what is quarantined, whose raw. Any if it is empty.
    """

    name: str
    exposure: int
    of: str = ""


@dataclass
class Heard:
    """What was heard."""

    kinds: Counter[str] = field(default_factory=Counter)
    starts: dict[tuple[str, int], list[tuple[int, str]]] = field(default_factory=dict)
    """By batch and detector: when its job was started and by whom."""
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    settled: set[tuple[int, int]] = field(default_factory=set)
    """Exposure and detector of what is done or given up."""

    settled_of: dict[int, set[int]] = field(default_factory=dict)
    """The same by exposure; raws that were quarantined are in it too."""

    milestones: set[Milestone] = field(default_factory=set)
    """How far exposures have come, under each pipeline and under any; which raws were set aside."""

    @property
    def n_redone(self) -> int:
        """Starts of jobs beyond the first of each."""
        return sum(len(starts) - 1 for starts in self.starts.values())

    def take(self, event: Event) -> None:
        """Take in an event."""
        self.kinds[event.kind.value] += 1
        self._mark(event)
        if event.kind is EventKind.SUMMARY_READY and event.data.get("is_complete") and event.exposure_id:
            # Also of detectors that were settled before this witness listened, or are excluded.
            self.settled_of.setdefault(event.exposure_id, set()).update(range(event.data.get("n_expected") or 0))
        if event.batch_id is None or event.detector is None:
            return
        job = (event.batch_id, event.detector)
        if event.kind is EventKind.JOB_STARTED:
            self.starts.setdefault(job, []).append((event.at_ms, str(event.data.get("worker", ""))))
        elif event.kind in {EventKind.JOB_FINISHED, EventKind.JOB_FAILED}:
            self.ends[job] = event.at_ms
            self.settled.add((event.exposure_id or 0, event.detector))
            self.settled_of.setdefault(event.exposure_id or 0, set()).add(event.detector)

    def _mark(self, event: Event) -> None:
        if event.kind is EventKind.RAW_QUARANTINED:
            raw = parse_name(str(event.data.get("uri", "")))
            if raw is not None and raw.exposure_id is not None:
                self.milestones |= {
                    Milestone("quarantined", raw.exposure_id, name) for name in (raw.detector_name or "", "")
                }
            return
        if event.batch_id is None or event.exposure_id is None:
            return
        reached = []
        if event.kind is EventKind.EXPOSURE_POSTED:
            reached = ["posted"]
        elif event.kind is EventKind.JOB_FINISHED:
            reached = ["result"]
        elif event.kind is EventKind.SUMMARY_READY:
            reached = ["summary", "complete"] if event.data.get("is_complete") else ["summary"]
        pipeline = BatchKey.parse(event.batch_id).pipeline
        for name in reached:
            self.milestones |= {Milestone(name, event.exposure_id, place) for place in (pipeline, "")}


class Witness:
    """Follows the event stream in a thread of its own.

    Parameters
    ----------
    url, instrument
        Of the board; it may be away for any time.
    also
        Called with every event, in the witness's thread.
    """

    def __init__(self, url: str, instrument: str, *, also: Callable[[Event], None] = lambda _event: None) -> None:
        self.heard = Heard()
        self._also = also
        self._board = Board(url, instrument, outage_s=600.0)
        self._last = "0"
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, name="witness", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._stopped.set()
        self._board.close()
        self._thread.join(30)

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until a condition holds, looked at whenever something was heard; return whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, timeout=timeout_s)

    def wait_for_news(self, timeout_s: float) -> None:
        """Wait until something is heard, or a time has passed."""
        with self._changed:
            self._changed.wait(timeout_s)

    def _follow(self) -> None:
        while not self._stopped.is_set():
            events: list[Event] = []
            with contextlib.suppress(StoreError, OSError, ValueError):
                events = self._board.events(self._last, timeout_s=2.0)
            if self._stopped.is_set():
                return
            with self._changed:
                for event in events:
                    self._last = event.event_id
                    self.heard.take(event)
                    self._also(event)
                self._changed.notify_all()
