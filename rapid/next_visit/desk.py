"""Take announcements in, and tell what has come of them."""

from collections import defaultdict
from datetime import UTC, datetime

import structlog

from rapid.dispatch.board import AsyncBoard
from rapid.next_visit import store
from rapid.next_visit.models import NextVisit, NextVisitCanceled, VisitState

log = structlog.get_logger()

N_BATCHES = 200


class VisitDesk:
    """The announcements of one camera."""

    def __init__(self, camera: str, board: AsyncBoard) -> None:
        self.camera = camera
        self._board = board

    async def announce(self, visit: NextVisit, *, by: str = "") -> bool:
        """Take in an announcement; return whether it is news.

        Parameters
        ----------
        by
            Who says so, for the log.

        Raises
        ------
        StoreError
            Raised if the board does not answer.
        """
        now_ms = await self._board.now_ms()
        life_s = visit.life_s(now_s=datetime.now(UTC).timestamp())
        is_new = await self._board.connection.run(
            store.announce(self._board.prefix, visit, life_s=life_s, now_ms=now_ms)
        )
        if is_new:
            log.info("visit announced", group_id=visit.group_id, filters=visit.filters, n_images=visit.n_images, by=by)
        return is_new

    async def cancel(self, canceled: NextVisitCanceled, *, by: str = "") -> bool:
        """Take an announcement back; return whether there was one; raises as `announce`."""
        was_there = await self._board.connection.run(store.cancel(self._board.prefix, canceled.group_id))
        if was_there:
            log.info("visit canceled", group_id=canceled.group_id, by=by)
        return was_there

    async def states(self) -> list[VisitState]:
        """Return the announcements that count, the newest first, and the exposures that came of each."""
        announced = await self._board.connection.run(store.get_announced(self._board.prefix, tidy=True))
        exposures: dict[str, dict[int, int]] = defaultdict(dict)
        if announced:
            for key in await self._board.recent(N_BATCHES):
                state = await self._board.state(key)
                group = state.info.get("group_id") if state is not None else None
                if state is not None and isinstance(group, str):
                    exposures[group][key.exposure_id] = int(state.info.get("group_index") or 0)
        return [_state(visit, at_ms, exposures.get(visit.group_id, {})) for visit, at_ms in announced]


def _state(visit: NextVisit, at_ms: int, exposures: dict[int, int]) -> VisitState:
    ordered = tuple(sorted(exposures, key=lambda one: (exposures[one], one)))
    is_whole = 0 < visit.n_images <= len(ordered)
    return VisitState(visit=visit, announced_at_ms=at_ms, exposures=ordered, is_whole=is_whole)
