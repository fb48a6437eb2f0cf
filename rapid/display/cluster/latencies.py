"""How long jobs and exposures take, from the board's stream of events. Pure bookkeeping."""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable

from rapid.dispatch.models import BatchKey, Event, EventKind
from rapid.display.cluster.models import Spread

N_KEPT = 2000
"""Of each kind: enough for a 99th percentile that rests on twenty, and it follows a change within minutes."""

N_OPEN = 20_000
"""Posts and starts whose end has not been heard of; more than the stream remembers."""


class Latencies:
    """Times between events, by pipeline."""

    def __init__(self) -> None:
        self.last_id = "0-0"
        """Id of the last event taken in."""
        self._posted: OrderedDict[str, int] = OrderedDict()
        self._started: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._spans: dict[tuple[str, str], deque[float]] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Take in events, in order."""
        for event in events:
            self.last_id = event.event_id
            if event.batch_id is not None:
                self._take_one(event, event.batch_id)

    def spreads(self) -> list[Spread]:
        """Return median, 99th percentile and largest, by pipeline; in the order a job goes through them."""
        steps = ("wait", "run", "total")
        found = []
        for name, step in sorted(self._spans, key=lambda key: (key[0], steps.index(key[1]))):
            spans = sorted(self._spans[name, step])
            found.append(
                Spread(
                    name=name,
                    step=step,
                    n=len(spans),
                    p50_s=percentile(spans, 50.0),
                    p99_s=percentile(spans, 99.0),
                    max_s=spans[-1],
                )
            )
        return found

    def _take_one(self, event: Event, batch_id: str) -> None:
        pipeline = BatchKey.parse(batch_id).pipeline
        detector = -1 if event.detector is None else event.detector
        if event.kind is EventKind.EXPOSURE_POSTED:
            # Posted again, it gets further detectors: the first post is what an observer waits from.
            self._posted.setdefault(batch_id, event.at_ms)
        elif event.kind is EventKind.JOB_STARTED:
            self._add(pipeline, "wait", self._posted.get(batch_id), event.at_ms)
            self._started[batch_id, detector] = event.at_ms
        elif event.kind in {EventKind.JOB_FINISHED, EventKind.JOB_FAILED}:
            self._add(pipeline, "run", self._started.pop((batch_id, detector), None), event.at_ms)
        elif event.kind is EventKind.JOB_RETURNED:
            self._started.pop((batch_id, detector), None)  # its time says nothing of the payload
        elif event.kind is EventKind.SUMMARY_READY and event.data.get("version") == 1:
            self._add(pipeline, "total", self._posted.get(batch_id), event.at_ms)
        for memory in (self._posted, self._started):
            while len(memory) > N_OPEN:
                memory.popitem(last=False)

    def _add(self, pipeline: str, step: str, since_ms: int | None, at_ms: int) -> None:
        if since_ms is not None and at_ms >= since_ms:
            self._spans.setdefault((pipeline, step), deque(maxlen=N_KEPT)).append((at_ms - since_ms) / 1000)


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest of some sorted values that at least so many percent do not exceed.

    Examples
    --------
    >>> percentile([1.0, 2.0, 3.0, 4.0], 50.0), percentile([1.0, 2.0], 99.0)
    (2.0, 2.0)
    """
    return values[max(math.ceil(percent / 100 * len(values)) - 1, 0)]
