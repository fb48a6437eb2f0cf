"""Find what a place outside was not told of, and have it put: newest first, a little at a time.

Whatever came to be while the role was away, of any run and night, is known from the results store's counters
(`rapid.results.changes`). A slice at a time goes into the outbox, behind all that is current, and the next one once
that is through: so neither memory nor the live night notices how much there is. It may be broken off anywhere.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from rapid.errors import StoreError
from rapid.pause import pause
from rapid.publish.metrics import PublishMetrics
from rapid.publish.outbox import Outbox, Parcel
from rapid.publish.threads import in_thread
from rapid.results.changes import CalibLine, Changes, DueNight, DueSummary

log = structlog.get_logger()

N_SLICE = 20
"""Parcels of what was missed that wait in the outbox at a time: little to make anew if another role takes over."""

COUNT_S = 30.0
"""Shortest time between two counts of all that is missing [s]."""

CALM_S = 1.0
"""Between two looks that were asked for [s]: a busy night tells of something every moment."""


class CatchUp:
    """Puts what was missed, as long as the right to publish is ours.

    Parameters
    ----------
    place
        Name under which it is noted what is there.
    summary_parcel, calib_parcel
        Make a parcel, sent behind what is current. Its contents make a note of what was put.
    look_s
        Time after which it is looked again, if nobody has asked [s].
    """

    def __init__(
        self,
        changes: Changes,
        outbox: Outbox,
        *,
        place: str,
        camera: str,
        summary_parcel: Callable[[DueSummary], Parcel],
        calib_parcel: Callable[[CalibLine], Parcel],
        look_s: float,
        metrics: PublishMetrics,
    ) -> None:
        self._changes = changes
        self._outbox = outbox
        self._place = place
        self._camera = camera
        self._summary_parcel = summary_parcel
        self._calib_parcel = calib_parcel
        self._look_s = look_s
        self._asked = asyncio.Event()
        self._metrics = metrics
        self._done: dict[str, int] = {}
        self._given_up: dict[str, int] = {}
        self._was_up = True
        self._counted_at = -COUNT_S
        self._n_calibs = 0
        self._n_summaries = 0
        self._n_nights = 0

    @property
    def n_behind(self) -> int:
        """How many summaries and lines of calibs are not there yet, as of the last count."""
        return self._n_summaries + self._n_calibs

    @property
    def note(self) -> str:
        """What a person is told; empty if nothing was missed."""
        if not self.n_behind:
            return ""
        words = []
        if self._n_summaries:
            nights = "night" if self._n_nights == 1 else "nights"
            words.append(f"{self._n_summaries} summaries of {self._n_nights} {nights}")
        if self._n_calibs:
            words.append(f"calibs of {self._n_calibs} detectors and kinds")
        given_up = f", {len(self._given_up)} of them given up until the next start" if self._given_up else ""
        return f"{' and '.join(words)} to be put{given_up}"

    def wake(self) -> None:
        """Have it looked now."""
        self._asked.set()

    def note_offered(self, key: str) -> None:
        """Take note that a summary was offered because it has changed: what was refused before may be taken now."""
        self._given_up.pop(key, None)
        self._asked.set()

    async def run(self) -> None:
        """Look and put until cancelled."""
        while True:
            self._asked.clear()
            is_more = False
            try:
                is_more = await self.step()
            except StoreError as error:
                log.warning("what was missed cannot be looked up", error=error.message)
            except Exception as error:  # what is current goes on being put, whatever is the matter with the rest
                log.exception("what was missed cannot be put", error=repr(error))
            if is_more:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._asked.wait()
            await pause(CALM_S)

    async def step(self) -> bool:
        """Put one slice; return whether there may be more.

        Raises
        ------
        StoreError
            Raised if the results store does not answer.
        """
        is_up = self._outbox.status.is_up
        if is_up and not self._was_up:
            self._given_up.clear()  # it was away: what was given up meanwhile is no fault of its own
        self._was_up = is_up
        return await self._step_calibs() or await self._step_nights()

    async def _step_nights(self) -> bool:
        nights = await in_thread(lambda: self._changes.due_nights(self._place, self._camera))
        self._n_nights = len({night.day_obs for night in nights})
        if nights and time.monotonic() - self._counted_at >= COUNT_S:
            self._tell(await in_thread(lambda: self._changes.n_due(self._place, self._camera)))
            self._counted_at = time.monotonic()
        n_left = 0
        for night in nights:
            due = await self._due(night)
            if not due:
                await in_thread(lambda night=night: self._changes.note_night(self._place, self._camera, night))  # type: ignore[misc]  # a default binds it
                continue
            put = await self._put([(parcel, n) for parcel, n in due.values()])
            if put:
                left = await self._due(night)
                # Sent, and due as before: whatever the reason, it must not be sent over and over.
                self._given_up |= {key: n for key, n in put.items() if key in left and left[key][1] == n}
                self._tell(max(self._n_summaries + len(left) - len(due), 0))
                return True
            n_left += len(due)
        self._tell(n_left)
        return False

    async def _due(self, night: DueNight) -> dict[str, tuple[Parcel, int]]:
        """Return what is due of a night, by key, newest exposure first."""
        found = await in_thread(lambda: self._changes.due_summaries(self._place, self._camera, night))
        parcels = [(self._summary_parcel(one), one.n) for one in found]
        return {parcel.key: (parcel, n) for parcel, n in parcels}

    def _tell(self, n_summaries: int) -> None:
        self._n_summaries = n_summaries
        self._metrics.missing.labels(destination=self._outbox.status.name).set(self.n_behind)

    async def _step_calibs(self) -> bool:
        lines = await in_thread(lambda: self._changes.due_calibs(self._place, self._camera))
        parcels = []
        for line in lines:
            parcel = self._calib_parcel(line)
            if self._done.get(parcel.key, 0) < line.event:
                parcels.append((parcel, line.event))
        self._n_calibs = len(parcels)
        if lines and not parcels:
            newest = max(line.event for line in lines)
            await in_thread(lambda: self._changes.note_calibs(self._place, self._camera, newest))
            self._done.clear()
        put = await self._put(parcels)
        self._done |= {key: n for key, n in put.items() if self._given_up.get(key) != n}
        return bool(put)

    async def _put(self, parcels: list[tuple[Parcel, int]]) -> dict[str, int]:
        """Offer the first of some parcels and wait until they are through; return which."""
        fresh = [
            (parcel, n)
            for parcel, n in parcels
            if not self._outbox.holds(parcel.key) and self._given_up.get(parcel.key) != n
        ][:N_SLICE]
        for parcel, n in fresh:
            give_up = partial(self._given_up.__setitem__, parcel.key, n)
            self._outbox.offer(replace(parcel, on_given_up=give_up))
        await self._outbox.wait_until_gone([parcel.key for parcel, _ in fresh])
        return {parcel.key: n for parcel, n in fresh}
