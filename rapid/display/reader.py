"""Follow the board once for all viewers, and keep the night in memory.

One task waits for the board's events and turns each batch of them into one message. What it knows it can
lose: at start, after a lost connection and after a flush of Redis it is built anew from the results store
and the board (invariant I2), and viewers are told to load their page's data again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import BatchKey, BatchState, Event, EventKind
from rapid.display.hub import Hub, Message
from rapid.display.live import LiveNight, day_obs_of, time_of_ms
from rapid.display.models import DetectorCell, ExposureUpdate, Source
from rapid.display.settings import DisplaySettings
from rapid.errors import StoreError
from rapid.pause import pause
from rapid.results.models import DetectorState, ExposureSummary
from rapid.results.store import ResultsStore

log = structlog.get_logger()
T = TypeVar("T")

WAIT_S = 10.0
"""How long one blocking read of the board lasts; events end it at once."""

RETRY_S = 1.0
LOOK_AGAIN_S = 1.0
"""How often a batch that waits for raws is read again: the arrival of a raw is no event of its own."""

LIVE_VIEW = "live view"
"""Name of the source that is down while this process cannot make sense of what board or store tell it."""

STORED = "0-1"
"""Stands for what the stores have, before any event of the board."""

N_RECENT = 64
"""Batches read from the board at start: more than are ever in work at once."""

MAX_NIGHT = 10_000
"""Summaries of one night: 2000 exposures and a few pipelines each, with room."""

_STATE_OF = {
    EventKind.JOB_STARTED: DetectorState.RUNNING,
    EventKind.JOB_FINISHED: DetectorState.FINISHED,
    EventKind.JOB_FAILED: DetectorState.FAILED,
    EventKind.JOB_RETURNED: DetectorState.QUEUED,
}


_TOLD = {
    EventKind.CONTROL_CHANGED: "control",
    EventKind.EXCLUSION_CHANGED: "exclusions",
    EventKind.CALIB_CERTIFIED: "calibs",
    EventKind.REQUEST_CHANGED: "requests",
    EventKind.LOG_CHANGED: "log",
    EventKind.CLUSTER_CHANGED: "cluster",
}
"""What concerns no exposure is told on as it is, under these names; the pages load what they show of it."""


class _Changes:
    """What a batch of events changed, by exposure."""

    def __init__(self) -> None:
        self.cells: dict[int, dict[int, DetectorCell]] = {}
        self.new: set[int] = set()
        self.summarised: set[int] = set()

    def touch(self, exposure_id: int, cells: list[DetectorCell]) -> None:
        """Note changed cells; the last change of a detector stands."""
        self.cells.setdefault(exposure_id, {}).update({cell.detector: cell for cell in cells})


class Reader:
    """The night now running, and the task that keeps it up to date.

    Parameters
    ----------
    board, results
        What it reads. It writes to neither.
    hub
        Where viewers hear of changes.
    """

    def __init__(
        self, settings: DisplaySettings, camera: Camera, board: AsyncBoard, results: ResultsStore, hub: Hub
    ) -> None:
        self._settings = settings
        self.camera = camera
        self.board = board
        self._results = results
        self._hub = hub
        self.names = {detector.id: detector.name for detector in camera.detectors}
        self.night = LiveNight(self.names, camera=self.camera)
        self.as_of = "0-0"
        """Id of the last event that `night` contains."""
        self._sources: dict[str, Source] = {}
        self._is_built = False
        self._looked: dict[str, float] = {}

    @property
    def sources(self) -> list[Source]:
        """What the display reads from, and whether it is there."""
        return list(self._sources.values())

    @property
    def is_ready(self) -> bool:
        """Whether the night is read in, and board and results store answered last time."""
        return self._is_built and len(self._sources) >= 2 and all(source.is_up for source in self._sources.values())

    @property
    def cadence_s(self) -> float:
        """Typical time between the last exposures; the setting's while there are too few to tell."""
        gap_s = self.night.gap_s
        return max(gap_s, 2.0) if gap_s is not None else self._settings.cadence_s

    async def run(self) -> None:
        """Follow the board until cancelled."""
        while True:
            try:
                await self._rebuild()
                if LIVE_VIEW in self._sources:
                    self._note(LIVE_VIEW, None)
                while True:
                    events = await self._ask("board", self.board.events(self.as_of, timeout_s=WAIT_S))
                    if events:
                        await self._apply(events)
            except StoreError as error:
                log.warning("display lost a source", error=error.message)
                if not self.night.tracks:
                    with contextlib.suppress(StoreError):
                        await self._show_stored()
                await pause(RETRY_S)
            except Exception as error:
                # Whatever it is, a page that quietly stands still is worse: say so, and try again.
                log.exception("display cannot follow the board", error=repr(error))
                self._note(LIVE_VIEW, f"{type(error).__name__}: {error}")
                await pause(RETRY_S)

    async def check(self) -> None:
        """Ask both sources for a sign of life, and note the answer."""
        with contextlib.suppress(StoreError):
            await self._ask("board", self.board.ping())
        with contextlib.suppress(StoreError):
            await self.ask_results(lambda: self._results.calib_generation())

    async def ask_results(self, ask: Callable[[], T]) -> T:
        """Put a blocking question to the results store, off the event loop.

        Raises
        ------
        StoreError
            Raised if the store does not answer.
        """
        return await self._ask("results store", asyncio.to_thread(ask))

    async def ask_board(self, answer: Awaitable[T]) -> T:
        """Await an answer of the board; raises `StoreError` if there is none."""
        return await self._ask("board", answer)

    async def summaries_of(self, day_obs: int) -> list[ExposureSummary]:
        """Return the newest summaries of a night from the results store."""
        run = self._settings.run
        return await self.ask_results(
            lambda: self._results.summaries(self.camera.name, day_obs=day_obs, limit=MAX_NIGHT, run=run)
        )

    # -- inside ------------------------------------------------------------------------------------

    async def _ask(self, name: str, answer: Awaitable[T]) -> T:
        try:
            found = await answer
        except StoreError as error:
            self._note(name, error.message)
            raise
        self._note(name, None)
        return found

    def _note(self, name: str, reason: str | None) -> None:
        known = self._sources.get(name)
        if known is not None and known.is_up == (reason is None):
            return
        self._sources[name] = Source(name=name, is_up=reason is None, since=datetime.now(UTC), reason=reason)
        # The first good news too: a viewer may have connected when only one of the sources had answered.
        self._hub.publish(Message.make("sources", {"sources": [s.model_dump(mode="json") for s in self.sources]}))

    async def _rebuild(self) -> None:
        # The last id is taken first: an event that is then both in the stores and in the stream changes nothing twice.
        as_of = await self._ask("board", self.board.last_event_id())
        recent = await self._ask("board", self.board.recent(N_RECENT))
        night = await self._stored_night(*(day_obs_of(key.exposure_id) for key in recent))
        ahead_ms = await self._ask("board", self.board.now_ms()) - round(datetime.now(UTC).timestamp() * 1000)
        self.night = night
        for key in reversed(recent):
            if key.run == self._settings.run and day_obs_of(key.exposure_id) == night.day_obs:
                state = await self._ask("board", self.board.state(key))
                if state is not None:
                    # The board's clock may have been moved ahead; what viewers compare with has not.
                    self._put_state(state, at=time_of_ms(state.posted_ms) - timedelta(milliseconds=ahead_ms))
        await self._load_metrics()
        self.as_of = as_of
        self._hub.start_at(as_of)
        self._is_built = True
        self._hub.publish(Message.make("reset", {"reason": "rebuilt"}))
        log.info("night rebuilt", day_obs=night.day_obs, n_exposures=len(night.tracks))

    async def _stored_night(self, *days: int) -> LiveNight:
        """Return the newest of the stored nights and of ``days``, with the summaries that are stored of it."""
        nights = await self.ask_results(lambda: self._results.nights(self.camera.name))
        night = LiveNight(
            self.names, day_obs=max([*days, *(day_obs for day_obs, _ in nights)], default=None), camera=self.camera
        )
        if night.day_obs is not None:
            for summary in await self.summaries_of(night.day_obs):
                night.put_summary(summary)
        return night

    async def _show_stored(self) -> None:
        """Show what the store has: started without its board, a display must not pass for an empty night."""
        self.night = await self._stored_night()
        if self.night.tracks:
            await self._load_metrics()
            # A page that was loaded before this and connects after it must be told to load anew.
            self.as_of = STORED
            self._hub.start_at(STORED)
            self._hub.publish(Message.make("reset", {"reason": "stored results only"}))
            log.info("stored night shown without the board", day_obs=self.night.day_obs)

    async def _load_metrics(self) -> None:
        """Give the newest exposures' cells the numbers of the store, where the board no longer has them."""
        for exposure_id in sorted(self.night.tracks, reverse=True)[:1]:
            if all(cell.metrics for cell in self.night.view(exposure_id).detectors if cell.state == "finished"):
                continue
            results = await self.ask_results(
                lambda wanted=exposure_id: self._results.results(  # type: ignore[misc]  # mypy cannot infer a default
                    wanted, camera=self.camera.name, run=self._settings.run
                )
            )
            for result in results:
                self.night.put_detector(
                    exposure_id,
                    result.pipeline,
                    result.detector,
                    DetectorState.FINISHED,
                    metrics=result.metrics,
                    at=result.finished_at,
                )

    def _put_state(self, state: BatchState, *, at: datetime | None) -> list[DetectorCell]:
        return self.night.put_exposure(
            state.key.exposure_id,
            state.key.pipeline,
            image_type=state.image_type,
            info=state.info,
            detectors=state.detectors,
            metrics=state.metrics,
            at=at,
        )

    async def _apply(self, events: list[Event]) -> None:
        changes = _Changes()
        for event in events:
            try:
                await self._apply_one(event, changes)
            except (ValueError, TypeError) as error:
                log.warning("event not understood", event_id=event.event_id, kind=event.kind, error=str(error))
        self.as_of = events[-1].event_id
        updates = []
        for exposure_id, cells in changes.cells.items():
            if exposure_id not in self.night.tracks:
                continue  # of an older night than the one on show
            view = self.night.view(exposure_id)
            is_news = exposure_id in changes.new or exposure_id in changes.summarised
            update = ExposureUpdate(
                row=view.row,
                cells=list(cells.values()),
                is_new=exposure_id in changes.new,
                info=view.info if is_news else None,
                products=view.products if is_news else None,
            )
            updates.append(update.model_dump(mode="json"))
        data = {"exposures": updates, "cadence_s": self.cadence_s}
        # Sent also when nothing is shown of it: its id is where a viewer resumes.
        self._hub.publish(Message.make("exposures", data, event_id=self.as_of))

    async def _apply_one(self, event: Event, changes: _Changes) -> None:
        if event.kind in _TOLD:
            # Without an id: a page that reconnects loads what it shows of these anyway.
            self._hub.publish(Message.make(_TOLD[event.kind], event.data))
            return
        if event.kind is EventKind.RAW_QUARANTINED:
            self._hub.publish(Message.make("alert", {"kind": event.kind.value, **event.data}))
            return
        if event.batch_id is None:
            if event.kind is EventKind.PRODUCTS_ADDED:
                self._hub.publish(Message.make("night", event.data))
            return
        key = BatchKey.parse(event.batch_id)
        if key.run != self._settings.run:
            return
        # The id is in the server's own time; `at_ms` may have been moved ahead.
        at = time_of_ms(int(event.event_id.partition("-")[0]))
        if key.exposure_id not in self.night.tracks:
            changes.new.add(key.exposure_id)
        cells = await self._look(key, event, at)
        state = _STATE_OF.get(event.kind)
        if state is not None and event.detector is not None:
            finished = state is DetectorState.FINISHED
            cell = self.night.put_detector(
                key.exposure_id,
                key.pipeline,
                event.detector,
                state,
                reason=None if finished else event.data.get("message") or event.data.get("code"),
                metrics=event.data if finished else None,
                at=at,
            )
            cells += [cell] if cell is not None else []
        elif event.kind in {EventKind.SUMMARY_READY, EventKind.PRODUCTS_ADDED}:
            cells += await self._take_summary(key, at)
            changes.summarised.add(key.exposure_id)
        changes.touch(key.exposure_id, cells)

    async def _look(self, key: BatchKey, event: Event, at: datetime) -> list[DetectorCell]:
        """Read a batch from the board if the event alone does not tell what is on show."""
        track = self.night.tracks.get(key.exposure_id)
        batch = track.batches.get(key.pipeline) if track is not None else None
        is_unknown = batch is None or (event.detector is not None and event.detector not in batch.cells)
        waits = batch is not None and any(cell.state is DetectorState.WAITING for cell in batch.cells.values())
        now = time.monotonic()
        is_due = waits and now - self._looked.get(key.id, 0.0) > LOOK_AGAIN_S
        if not (is_unknown or is_due or event.kind is EventKind.EXPOSURE_POSTED):
            return []
        if len(self._looked) > 4 * N_RECENT:
            self._looked.clear()
        self._looked[key.id] = now
        state = await self._ask("board", self.board.state(key))
        return self._put_state(state, at=at) if state is not None else []

    async def _take_summary(self, key: BatchKey, at: datetime) -> list[DetectorCell]:
        camera, run = self.camera.name, self._settings.run
        summary = await self.ask_results(
            lambda: self._results.latest_summary(camera, key.exposure_id, pipeline=key.pipeline, run=run)
        )
        return self.night.put_summary(summary, at=at) or [] if summary is not None else []
