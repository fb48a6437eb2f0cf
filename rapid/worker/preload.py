"""Make ready what an announced visit will need, while the worker has nothing better to do.

The payload child loads the calibs of a detector, and the reference catalogue's tiles around it, one detector at a time
and only while the worker waits for a job: what comes meanwhile waits for one detector at most. An announcement that
expires or is canceled costs what was loaded, and that is let go.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import WorkerSpec
from rapid.dispatch.talk import Command, Talk
from rapid.errors import RapidError
from rapid.next_visit import store
from rapid.next_visit.models import NextVisit
from rapid.pause import pause
from rapid.worker.messages import Preload
from rapid.worker.process import PayloadChild

log = structlog.get_logger()

RETRY_S = 1.0
QUIET_S = 0.25
"""A fan-out service tells of each detector by itself: what comes that close together is looked at as one."""
N_ROUNDS = 20
"""Readings after which it is looked at, whatever else comes."""
N_DETECTORS = 16
"""Most detectors a worker makes ready of one visit: half a gigabyte of calibs each, which others want to keep, too."""


def share_of(
    detectors: list[int],
    *,
    own: dict[int, str],
    workers: list[str],
    worker_id: str,
    wanted: Collection[int] | None = None,
    limit: int = N_DETECTORS,
) -> list[int]:
    """Return the detectors that a worker makes ready: those it ran last, then its share of those nobody did.

    Parameters
    ----------
    detectors
        All of the camera: shares of some are those of all, so that one told of later moves no other to another worker.
    wanted
        Those to make ready; all if None.

    Examples
    --------
    >>> share_of([1, 2, 3, 4], own={3: "a", 4: "b"}, workers=["a", "b"], worker_id="a")
    [3, 1]
    """
    mine = [number for number in detectors if own.get(number) == worker_id]
    alive = sorted({*workers, worker_id})
    free = [number for number in detectors if own.get(number) not in alive]
    share = mine + free[alive.index(worker_id) :: len(alive)]
    return [number for number in share if wanted is None or number in wanted][:limit]


@dataclass(frozen=True)
class _Made:
    """What was begun to be made ready for a visit.

    Attributes
    ----------
    until_s
        When its announcement expires, monotonic.
    """

    visit: NextVisit
    until_s: float
    detectors: frozenset[int]


class Preloader:
    """Follows announcements for one worker.

    Parameters
    ----------
    is_idle
        Set while the worker waits for a job.
    child
        Returns its payload child, if it has one.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        camera: Camera,
        board: AsyncBoard,
        *,
        is_idle: asyncio.Event,
        child: Callable[[], PayloadChild | None],
    ) -> None:
        self._spec = spec
        self._camera = camera
        self._board = board
        self._is_idle = is_idle
        self._child = child
        self._todo: deque[tuple[str, Preload]] = deque()
        self._made: dict[str, _Made] = {}

    async def run(self) -> None:
        """Follow announcements until cancelled."""
        prefix = self._board.prefix
        while True:
            try:
                after = await self._board.connection.run(store.last_news_id(prefix))
                for visit, _ in reversed(await self._board.connection.run(store.get_announced(prefix))):
                    await self._take(visit)
                while True:
                    news = await self._next_news(after, wait_s=0.001 if self._todo else store.BLOCK_S)
                    if news:
                        after = news[-1].entry_id
                        await self._hear(news)
                    await self._expire()
                    if self._todo:
                        group_id, preload = self._todo.popleft()
                        if await self._tell(preload):
                            following = preload.model_copy(update={"step": preload.step + 1})
                            self._todo.appendleft((group_id, following))
            except RapidError as error:
                log.warning("announcements cannot be followed for now", error=error.message)
                await pause(RETRY_S)

    async def _next_news(self, after: str, *, wait_s: float) -> list[store.VisitNews]:
        """Return what changed, with what follows closely if a visit is announced detector by detector."""
        prefix = self._board.prefix
        news = await self._board.connection.run(store.follow(prefix, after, timeout_s=wait_s))
        for _ in range(N_ROUNDS):
            if not any(one.visit is not None and one.visit.detectors is not None for one in news):
                break
            more = await self._board.connection.run(store.follow(prefix, news[-1].entry_id, timeout_s=QUIET_S))
            if not more:
                break
            news += more
        return news

    async def _hear(self, news: list[store.VisitNews]) -> None:
        announced: dict[str, NextVisit] = {}
        for one in news:
            if one.visit is None:
                announced.pop(one.group_id, None)
                await self._release(one.group_id)
            else:
                announced[one.group_id] = one.visit.joined_to(announced.get(one.group_id))
        for visit in announced.values():
            await self._take(visit)

    async def _take(self, visit: NextVisit) -> None:
        made = self._made.get(visit.group_id)
        before = made.visit if made is not None else None
        if before is not None and before.said != visit.said:
            await self._release(visit.group_id)  # announced anew, otherwise
            before = None
        visit = visit.joined_to(before)
        known = made.detectors if made is not None and before is not None else frozenset()
        mine = [number for number in await self._share(visit) if number not in known]
        until_s = time.monotonic() + visit.life_s(now_s=datetime.now(UTC).timestamp())
        self._made[visit.group_id] = _Made(visit, until_s, known | frozenset(mine))
        for number in mine:
            self._todo.append((visit.group_id, _preload(visit, self._camera.name, number)))
        log.info("visit is made ready", group_id=visit.group_id, n_detectors=len(mine))

    async def _tell(self, preload: Preload) -> bool:
        """Have the child take one step, once the worker waits for a job; return whether there is another."""
        await self._is_idle.wait()
        child = self._child()
        if child is None:
            return False
        # Shielded: an answer nobody waits for would be taken for the next job's.
        return await asyncio.shield(child.preload(preload))

    async def _share(self, visit: NextVisit) -> list[int]:
        """Return the detectors this worker makes ready."""
        pinned = frozenset(self._spec.pinned or ())
        known = [one.id for one in self._camera.detectors]
        wanted = frozenset(known if visit.detectors is None else visit.detectors)
        if pinned:
            return [number for number in known if number in wanted & pinned][:N_DETECTORS]
        ran: dict[int, str] = {}
        for pool in self._spec.pools:
            found = await self._board.connection.run(_ran_last(self._board.prefix, pool))
            ran |= {int(number): worker.decode() for number, worker in found}
        workers = [
            state.worker_id
            for state in await self._board.workers()
            if not state.pinned and set(state.pools.replace(",", " ").split()) & set(self._spec.pools)
        ]
        return share_of(known, own=ran, workers=workers, worker_id=self._spec.worker_id, wanted=wanted)

    async def _expire(self) -> None:
        now_s = time.monotonic()
        for group_id in [group_id for group_id, made in self._made.items() if made.until_s < now_s]:
            await self._release(group_id)

    async def _release(self, group_id: str) -> None:
        self._todo = deque(entry for entry in self._todo if entry[0] != group_id)
        if self._made.pop(group_id, None) is not None:
            await self._tell(Preload(group_id=group_id, is_release=True))


def _ran_last(prefix: str, pool: str) -> Talk[list[tuple[bytes, bytes]]]:
    """Return which worker ran each detector last, as the board prefers to give them out again."""
    found = yield Command(("HGETALL", f"{prefix}affinity:{pool}"))
    return list(zip(found[::2], found[1::2], strict=True))


def _preload(visit: NextVisit, camera: str, detector: int) -> Preload:
    return Preload(
        group_id=visit.group_id,
        camera=camera,
        detector=detector,
        filters=visit.physical_filters,
        begin=visit.begin,
        sky=visit.sky,
        angle_deg=visit.sky_angle_deg,
    )
