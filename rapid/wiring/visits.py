"""What the command line asks of announcements."""

from rapid.next_visit.desk import VisitDesk
from rapid.next_visit.models import NextVisit, NextVisitCanceled, VisitState
from rapid.wiring.roles import _board
from rapid.wiring.settings import RoleSettings


async def announce_visits(settings: RoleSettings, visits: list[NextVisit]) -> list[bool]:
    """Announce visits; return which are news."""
    async with _board(settings) as board:
        desk = VisitDesk(settings.camera, board)
        return [await desk.announce(visit) for visit in visits]


async def cancel_visit(settings: RoleSettings, group_id: str) -> bool:
    """Take an announcement back; return whether there was one."""
    async with _board(settings) as board:
        return await VisitDesk(settings.camera, board).cancel(NextVisitCanceled(group_id=group_id))


async def read_visits(settings: RoleSettings) -> list[VisitState]:
    """Return the announcements that count, and what has come of them."""
    async with _board(settings) as board:
        return await VisitDesk(settings.camera, board).states()
