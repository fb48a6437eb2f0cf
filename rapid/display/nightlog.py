"""The night log over HTTP: everybody may read it; who has a token may write."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from rapid.access import CHANGE_ERRORS, Access, BadRequestError, ErrorAnswer, Principal
from rapid.dispatch.models import EventKind
from rapid.display.api import ERRORS, DayObs, ExposureId
from rapid.display.hub import Hub, Message
from rapid.display.live import day_obs_of
from rapid.display.reader import Reader
from rapid.errors import StoreError
from rapid.nightlog.export import as_csv
from rapid.nightlog.models import MAX_TEXT, Flag, LogEntry, LogError, flags_of
from rapid.nightlog.store import NightLog

EntryId = Annotated[int, Path(gt=0, le=2**53, description="Number of the entry.")]
History = Annotated[bool, Query(description="Also what was taken back or replaced.")]

CHANGES: dict[int | str, dict[str, Any]] = {
    **CHANGE_ERRORS,
    409: {"model": ErrorAnswer, "description": "Somebody else has taken the entry back before."},
}


class NightLogView(BaseModel):
    """The log of a night, or of an exposure."""

    day_obs: int
    entries: list[LogEntry] = Field(description="In the order they were written.")
    flags: dict[int, Flag] = Field(description="The flag in force, by exposure id; those without one left out.")


class LogRequest(BaseModel):
    """What to write down: a comment, a flag, or both; on an exposure, or on a night."""

    model_config = ConfigDict(extra="forbid")

    exposure_id: int | None = Field(default=None, gt=0, le=2**53, description="The exposure it is about.")
    day_obs: int | None = Field(default=None, ge=19900101, le=99991231, description="Or the night as a whole.")
    text: str = Field(default="", max_length=2 * MAX_TEXT)
    flag: Flag | None = Field(default=None, description="none takes an earlier flag away; null leaves it.")
    replaces: int | None = Field(default=None, gt=0, le=2**53, description="Entry that this one is a new wording of.")


def log_routes(access: Access, store: NightLog, reader: Reader, hub: Hub) -> APIRouter:
    """Return the routes of the night log."""
    router = APIRouter(tags=["night log"], responses=ERRORS)
    camera = reader.camera.name

    async def tell(entry: LogEntry, what: str) -> None:
        data = {"what": what, "id": entry.id, "day_obs": entry.day_obs, "exposure_id": entry.exposure_id}
        try:
            await reader.ask_board(reader.board.publish(EventKind.LOG_CHANGED, data=data))
        except StoreError:
            hub.publish(Message.make("log", data))  # it is stored; who looks at this display need not wait

    @router.get("/api/log/{day_obs}", summary="What observers wrote in a night")
    async def night_log(day_obs: DayObs, history: History = False) -> NightLogView:
        """Return comments and flags of a night, and the flags in force."""
        entries = await reader.ask_results(lambda: store.entries(camera, day_obs=day_obs, history=history))
        return NightLogView(day_obs=day_obs, entries=entries, flags=flags_of(entries))

    @router.get("/api/log/{day_obs}/csv", summary="The night log as CSV", response_class=Response)
    async def night_log_csv(day_obs: DayObs) -> Response:
        """Return what stands in the log of a night, oldest first."""
        entries = await reader.ask_results(lambda: store.entries(camera, day_obs=day_obs))
        headers = {"Content-Disposition": f'attachment; filename="{camera}_{day_obs}_log.csv"'}
        return Response(as_csv(entries), media_type="text/csv; charset=utf-8", headers=headers)

    @router.get("/api/exposures/{exposure_id}/log", summary="What observers wrote on an exposure")
    async def exposure_log(exposure_id: ExposureId, history: History = False) -> NightLogView:
        """Return comments and flags of an exposure."""
        entries = await reader.ask_results(lambda: store.entries(camera, exposure_id=exposure_id, history=history))
        return NightLogView(day_obs=day_obs_of(exposure_id), entries=entries, flags=flags_of(entries))

    @router.post("/api/log", status_code=201, summary="Write a comment, set a flag", responses=CHANGES)
    async def write(request: LogRequest, who: Annotated[Principal, Depends(access.may_change)]) -> LogEntry:
        """Write an entry; it appears on every open page."""
        day_obs = day_obs_of(request.exposure_id) if request.exposure_id is not None else request.day_obs
        if day_obs is None:
            raise BadRequestError("exposure_id", "say which exposure, or with day_obs which night")
        if request.day_obs not in {None, day_obs}:
            raise BadRequestError("day_obs", f"exposure {request.exposure_id} is of {day_obs}")
        try:
            entry = await asyncio.to_thread(
                lambda: store.write(
                    camera,
                    day_obs,
                    author=who.name,
                    now=datetime.now(UTC),
                    text=request.text,
                    exposure_id=request.exposure_id,
                    flag=request.flag,
                    replaces=request.replaces,
                )
            )
        except LogError as error:
            raise BadRequestError(error.field, error.reason) from error
        await tell(entry, "replaced" if request.replaces else "written")
        return entry

    @router.delete("/api/log/{entry_id}", summary="Take an entry back", responses=CHANGES)
    async def retract(entry_id: EntryId, who: Annotated[Principal, Depends(access.may_change)]) -> LogEntry:
        """Take an entry back. It stays in the history, with who took it back."""
        entry = await asyncio.to_thread(lambda: store.retract(camera, entry_id, by=who.name, now=datetime.now(UTC)))
        await tell(entry, "retracted")
        return entry

    return router
