"""What waits to be sent to somebody outside, and the tasks that send it.

The outbox holds no contents, only how to make them from the products and results stores; so it may be lost at any
time, and an outage of hours costs a few MB. It keeps these promises:

* **Order per key.** One parcel of a key is under way at a time, and a parcel of an older version than one that was
  offered before is left out: the old never overwrites the new.
* **The newest counts.** A parcel that waits is replaced by a newer one of the same key.
* **An outage blocks nothing and gives nothing up.** While the other side does not answer, one parcel tries at a time,
  with a pause that grows to a bound; the rest waits. It resumes by itself.
* **One bad parcel stops no other.** What fails while others get through is tried a bounded number of times, then it
  is a dead letter: counted, logged, listed in the status.
"""

import asyncio
import contextlib
import heapq
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import structlog

from rapid.errors import RapidError, Retry
from rapid.publish.bucket import checksum
from rapid.publish.metrics import PublishMetrics
from rapid.publish.status import DeadParcel, DestinationStatus
from rapid.publish.threads import in_thread

log = structlog.get_logger()


@dataclass(frozen=True)
class Parcel:
    """Something to send.

    Attributes
    ----------
    key
        Where to; parcels of one key are sent one after the other.
    version
        Order of the contents under a key; the same or a larger one replaces.
    make
        Makes the contents, in a thread, at the moment they are sent. Returns None if there is nothing to send.
    rank
        The smallest goes first.
    obsolete
        Keys that can go once this one is sent.
    on_sent
        Called once it is there, also if it was there before.
    on_given_up
        Called when it becomes a dead letter.
    """

    key: str
    make: Callable[[], bytes | None]
    version: int = 0
    rank: tuple[int, ...] = (0,)
    content_type: str = "application/octet-stream"
    obsolete: tuple[str, ...] = ()
    on_sent: Callable[[], None] = lambda: None
    on_given_up: Callable[[], None] = lambda: None


class Destination(Protocol):
    """Where parcels go. Called in threads, for one key at a time."""

    name: str

    def send(self, parcel: Parcel, data: bytes) -> None:
        """Deliver.

        Raises
        ------
        RapidError
            Raised if it was not delivered; its ``retry`` says whether to try again.
        """
        ...

    def remove(self, key: str) -> None:
        """Take away what is no longer wanted; raises like `send`."""
        ...


@dataclass(order=True)
class _Waiting:
    rank: tuple[int, ...]
    number: int
    parcel: Parcel = field(compare=False)
    since: float = field(compare=False, default_factory=time.monotonic)
    failures: int = field(compare=False, default=0)
    failed_at_success: int = field(compare=False, default=-1)
    """How many parcels had got through when it failed last."""


class Outbox:
    """Parcels for one destination.

    Parameters
    ----------
    n_parallel
        How many are sent at a time.
    max_waiting
        Most that wait; beyond it the least urgent are left out, and `is_incomplete` says so: whoever fills the outbox
        offers them again from the stores.
    max_failures
        A parcel that failed so often while others got through becomes a dead letter.
    max_age_s
        One that has waited so long does too, whatever the reason.
    pause_s, pause_max_s
        First and longest pause after a failure.
    remember
        How many keys' versions and checksums are remembered.
    stop_s
        How long `run` waits for what is being sent when it is told to stop; a call that hangs is left behind then.
    may_send
        Asked before each parcel: False while another process sends.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        n_parallel: int = 4,
        max_waiting: int = 20_000,
        max_failures: int = 6,
        max_age_s: float = 86_400.0,
        pause_s: float = 0.5,
        pause_max_s: float = 30.0,
        remember: int = 100_000,
        stop_s: float = 10.0,
        may_send: Callable[[], bool] = lambda: True,
        metrics: PublishMetrics | None = None,
    ) -> None:
        self._destination = destination
        self._n_parallel = n_parallel
        self._max_waiting = max_waiting
        self._max_failures = max_failures
        self._max_age_s = max_age_s
        self._pause_s = pause_s
        self._pause_max_s = pause_max_s
        self._remember = remember
        self._stop_s = stop_s
        self._may_send = may_send
        self._metrics = metrics or PublishMetrics()
        self._waiting: dict[str, _Waiting] = {}
        self._heap: list[_Waiting] = []
        self._later: list[tuple[float, int, _Waiting]] = []
        self._numbers = itertools.count()
        self._busy: set[str] = set()
        self._versions: OrderedDict[str, int] = OrderedDict()
        self._sent: OrderedDict[str, str] = OrderedDict()
        self._changed = asyncio.Event()
        self._failures_in_a_row = 0
        self._resume_at = 0.0
        self._n_sent = 0
        self._n_dead = 0
        self._is_probing = False
        self._down_since: datetime | None = None
        self._last_error: str | None = None
        self._last_sent: datetime | None = None
        self._dead: OrderedDict[str, DeadParcel] = OrderedDict()
        self.is_incomplete = False
        """Whether parcels were left out for want of room."""

        self.on_change: Callable[[], None] = lambda: None
        """Called when the destination goes down or comes back, and for every dead letter."""

    # Filling it

    def know(self, checksums: dict[str, str]) -> None:
        """Take in what the destination has, so that it is not sent again."""
        for key, found in checksums.items():
            self._note_sent(key, found)

    def offer(self, parcel: Parcel) -> bool:
        """Take in a parcel; return False if a newer one of its key was offered before."""
        known = self._versions.get(parcel.key)
        if known is not None and parcel.version < known:
            return False
        self._versions[parcel.key] = parcel.version
        self._versions.move_to_end(parcel.key)
        while len(self._versions) > self._remember:
            self._versions.popitem(last=False)
        before = self._waiting.get(parcel.key)
        waiting = _Waiting(parcel.rank, next(self._numbers), parcel)
        if before is not None:
            waiting.since, waiting.failures = before.since, before.failures
            waiting.failed_at_success = before.failed_at_success
            obsolete = dict.fromkeys((*before.parcel.obsolete, *parcel.obsolete))
            if len(obsolete) != len(parcel.obsolete):
                waiting.parcel = replace(parcel, obsolete=tuple(obsolete))
        self._waiting[parcel.key] = waiting
        heapq.heappush(self._heap, waiting)
        if len(self._waiting) > self._max_waiting:
            self._leave_out()
        if len(self._heap) > 2 * len(self._waiting) + 64:
            later = {id(entry[2]) for entry in self._later}
            self._heap = [entry for entry in self._waiting.values() if id(entry) not in later]
            heapq.heapify(self._heap)
        self._dead.pop(parcel.key, None)
        self._note_depth()
        self._changed.set()
        return True

    def _leave_out(self) -> None:
        worst = max(self._waiting.values())
        del self._waiting[worst.parcel.key]
        # Its version was not sent: the same one may be offered again.
        self._versions.pop(worst.parcel.key, None)
        self.is_incomplete = True
        self._metrics.left_out.labels(destination=self._destination.name).inc()

    def holds(self, key: str) -> bool:
        """Whether a parcel of a key waits, or is being sent."""
        return key in self._waiting or key in self._busy

    async def wait_until_gone(self, keys: Collection[str]) -> None:
        """Wait until none of some keys waits any more, sent or given up; as long as it takes."""
        while any(self.holds(key) for key in keys):
            await self._wait_for_change()

    def wake(self) -> None:
        """Have `may_send` asked anew."""
        self._changed.set()

    # Sending

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop`` is set; what is being sent is finished, if it does not take longer than ``stop_s``."""
        senders = [asyncio.create_task(self._send_all(stop)) for _ in range(self._n_parallel)]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({*senders, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for sender in senders:
                if sender.done():
                    sender.result()
            self._changed.set()
            ended, hanging = await asyncio.wait(senders, timeout=self._stop_s)
            for sender in ended:
                sender.result()
            if hanging:
                log.warning("left behind what hangs", destination=self._destination.name, keys=sorted(self._busy))
        finally:
            for task in (*senders, stopped):
                task.cancel()
            await asyncio.gather(*senders, stopped, return_exceptions=True)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is left to send; return whether it is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._waiting or self._busy:
                    await self._wait_for_change()
        return not (self._waiting or self._busy)

    async def _wait_for_change(self, timeout_s: float = 5.0) -> None:
        # Nothing comes between a look that found nothing and this: no change is missed.
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # wait_for would begin to wait one turn too late
                await self._changed.wait()

    async def _send_all(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            waiting = self._next()
            if waiting is None:
                await self._wait_for_change(self._until_due())
                continue
            key = waiting.parcel.key
            self._busy.add(key)
            is_probe = self._failures_in_a_row > 0
            self._is_probing = self._is_probing or is_probe
            try:
                await self._send(waiting)
            finally:
                self._busy.discard(key)
                if is_probe:
                    self._is_probing = False
                self._changed.set()

    def _until_due(self) -> float:
        """Return how long nothing can be sent unless something changes [s]."""
        due = [entry[0] for entry in self._later[:1]]
        if self._failures_in_a_row and not self._is_probing and self._heap:
            due.append(self._resume_at)
        return min(max(min(due) - time.monotonic(), 0.01), 5.0) if due else 5.0

    def _next(self) -> _Waiting | None:
        """Return the most urgent parcel that may be sent now."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappush(self._heap, heapq.heappop(self._later)[2])
        if not self._may_send() or (self._failures_in_a_row and (self._is_probing or now < self._resume_at)):
            return None
        put_back = []
        found = None
        while self._heap:
            waiting = heapq.heappop(self._heap)
            if self._waiting.get(waiting.parcel.key) is not waiting:
                continue  # replaced, sent or left out
            if waiting.parcel.key in self._busy:
                put_back.append(waiting)
                continue
            found = waiting
            break
        for waiting in put_back:
            heapq.heappush(self._heap, waiting)
        if found is not None:
            del self._waiting[found.parcel.key]
        return found

    async def _send(self, waiting: _Waiting) -> None:
        parcel = waiting.parcel
        begin = time.monotonic()
        made = False
        try:
            data = await in_thread(parcel.make)
            made = True
            if data is not None:
                found = checksum(data)
                if self._sent.get(parcel.key) != found:
                    await in_thread(lambda: self._destination.send(parcel, data))
                    self._n_sent += 1
                    self._note_sent(parcel.key, found)
                    self._metrics.sent(self._destination.name, len(data), time.monotonic() - begin)
                    self._note_success()
            for key in parcel.obsolete:
                await in_thread(lambda key=key: self._destination.remove(key))  # type: ignore[misc]  # a default binds it
            parcel.on_sent()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this parcel's: noted, logged, tried again or given up
            self._note_failure(waiting, error, is_theirs=made)
            return
        self._note_depth()

    def _note_sent(self, key: str, found: str) -> None:
        self._sent[key] = found
        self._sent.move_to_end(key)
        while len(self._sent) > self._remember:
            self._sent.popitem(last=False)

    def _note_success(self) -> None:
        self._failures_in_a_row = 0
        self._last_sent = datetime.now(UTC)
        if self._down_since is not None:
            log.info("destination answers again", destination=self._destination.name)
            self._down_since = None
            self._last_error = None
            self.on_change()
        self._metrics.is_up(self._destination.name, up=True)

    def _note_failure(self, waiting: _Waiting, error: Exception, *, is_theirs: bool) -> None:
        """Decide what becomes of a parcel that was not sent."""
        parcel = waiting.parcel
        message = error.message if isinstance(error, RapidError) else f"{type(error).__name__}: {error}"
        self._metrics.failures.labels(destination=self._destination.name).inc()
        self._sent.pop(parcel.key, None)  # it may have arrived after all, or in part
        can_retry = isinstance(error, RapidError) and error.retry is Retry.LATER
        if is_theirs and can_retry:
            self._failures_in_a_row += 1
            self._last_error = message
            pause_s = min(self._pause_s * 2.0 ** min(self._failures_in_a_row - 1, 16), self._pause_max_s)
            self._resume_at = time.monotonic() + pause_s
            if self._down_since is None and self._failures_in_a_row >= 2:
                self._down_since = datetime.now(UTC)
                log.warning("destination does not answer", destination=self._destination.name, error=message)
                self._metrics.is_up(self._destination.name, up=False)
                self.on_change()
        # A failure counts against the parcel only if another got through since its last one.
        if not is_theirs or self._n_sent > waiting.failed_at_success:
            waiting.failures += 1
        waiting.failed_at_success = self._n_sent
        age_s = time.monotonic() - waiting.since
        newer = self._waiting.get(parcel.key)
        if newer is not None:
            newer.failures, newer.failed_at_success, newer.since = (
                waiting.failures,
                waiting.failed_at_success,
                waiting.since,
            )
            return
        # Our own stores may be away for longer: nothing else would tell that apart from a product that is broken.
        limit = self._max_failures if is_theirs else 5 * self._max_failures
        if not can_retry or waiting.failures >= limit or age_s > self._max_age_s:
            self._bury(waiting, message)
            return
        again = _Waiting(waiting.rank, next(self._numbers), parcel, waiting.since)
        again.failures, again.failed_at_success = waiting.failures, waiting.failed_at_success
        self._waiting[parcel.key] = again
        # By itself it waits too, so that its tries are not used up while others get through.
        pause_s = min(self._pause_s * 2.0 ** min(max(waiting.failures - 1, 0), 16), self._pause_max_s)
        due = max(time.monotonic() + pause_s, self._resume_at if self._failures_in_a_row else 0.0)
        heapq.heappush(self._later, (due, again.number, again))

    def _bury(self, waiting: _Waiting, message: str) -> None:
        key = waiting.parcel.key
        self._n_dead += 1
        self._dead[key] = DeadParcel(key=key, error=message, failures=max(waiting.failures, 1), at=datetime.now(UTC))
        while len(self._dead) > 200:
            self._dead.popitem(last=False)
        self._versions.pop(key, None)  # offered again, from the stores or by a person, it gets another chance
        self._metrics.dead.labels(destination=self._destination.name).inc()
        log.error("not published", destination=self._destination.name, key=key, error=message)
        waiting.parcel.on_given_up()
        self.on_change()

    def _note_depth(self) -> None:
        self._metrics.waiting.labels(destination=self._destination.name).set(len(self._waiting))

    @property
    def status(self) -> DestinationStatus:
        """How it stands."""
        oldest = min((entry.since for entry in self._waiting.values()), default=None)
        return DestinationStatus(
            name=self._destination.name,
            is_up=self._down_since is None,
            down_since=self._down_since,
            error=self._last_error,
            n_waiting=len(self._waiting) + len(self._busy),
            oldest_s=round(time.monotonic() - oldest, 1) if oldest is not None else 0.0,
            n_sent=self._n_sent,
            n_dead=self._n_dead,
            last_sent=self._last_sent,
            is_incomplete=self.is_incomplete,
            dead=list(self._dead.values())[-20:],
        )
