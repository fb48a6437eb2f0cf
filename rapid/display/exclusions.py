"""Exclusions over HTTP: everybody may see what is off and why; who has a token may switch off and on."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from rapid.access import CHANGE_ERRORS, Access, BadRequestError, ErrorAnswer, Principal
from rapid.dispatch.models import EventKind
from rapid.display.asked import check_detector
from rapid.display.hub import Hub, Message
from rapid.display.reader import Reader
from rapid.errors import StoreError
from rapid.exclusions.decide import MAX_TARGETS, newest_begin, next_exposure_from, parse_bound, parse_targets
from rapid.exclusions.models import MAX_REASON, Exclusion, ExclusionError
from rapid.exclusions.store import ExclusionStore

Answers = dict[int | str, dict[str, Any]]
ExclusionId = Annotated[int, Path(gt=0, le=2**53, description="Number of the exclusion.")]


class ExclusionView(Exclusion):
    """An exclusion, and whether it concerns the next exposure."""

    is_active: bool = Field(description="Whether the next exposure will be without it.")


class ExclusionsView(BaseModel):
    """Exclusions, and the time from which a change made now would hold."""

    next_exposure: datetime = Field(description="UTC. Exposures that begin from here on are the next ones.")
    exclusions: list[ExclusionView]


class ExclusionRequest(BaseModel):
    """What to switch off."""

    model_config = ConfigDict(extra="forbid")

    targets: list[int | str] = Field(
        min_length=1, max_length=MAX_TARGETS, description="Detectors (94, R22_S11), amps (R22_S11/C00), rafts (R22)."
    )
    reason: str = Field(min_length=1, max_length=MAX_REASON, description="Why: shown wherever the detector is.")
    valid_from: str | None = Field(
        default=None, max_length=64, description="ISO time or observing day; the next exposure if left out."
    )
    valid_to: str | None = Field(
        default=None, max_length=64, description="ISO time it is on again, or last observing day; open if left out."
    )


def exclusion_routes(access: Access, store: ExclusionStore, reader: Reader, hub: Hub) -> APIRouter:
    """Return the routes below ``/api/exclusions``."""
    router = APIRouter(tags=["exclusions"])
    camera = reader.camera
    change_errors: Answers = {**CHANGE_ERRORS, 409: {"model": ErrorAnswer, "description": "Somebody else was first."}}
    errors: Answers = {503: {"model": ErrorAnswer, "description": "The results store does not answer."}}
    missing: Answers = {404: {"model": ErrorAnswer, "description": "There is no such exclusion."}}

    def next_exposure(now: datetime) -> datetime:
        newest = reader.night.newest
        info = reader.night.view(newest).info if newest is not None else {}
        return next_exposure_from(newest_begin(info), now=now)

    def viewed(exclusions: list[Exclusion], now: datetime) -> ExclusionsView:
        begin = next_exposure(now)
        views = [
            ExclusionView(**one.model_dump(), is_active=one.covers(begin) or one.covers(now)) for one in exclusions
        ]
        return ExclusionsView(next_exposure=begin, exclusions=views)

    async def tell(exclusions: list[Exclusion], what: str) -> None:
        data = {"what": what, "names": [one.name for one in exclusions]}
        try:
            await reader.ask_board(reader.board.publish(EventKind.EXCLUSION_CHANGED, data=data))
        except StoreError:
            # It is stored, and the head will ask; those who look at this display need not wait for the board.
            hub.publish(Message.make("exclusions", data))

    @router.get("/api/exclusions", summary="What is off, or will be", responses=errors)
    async def exclusions(
        history: Annotated[bool, Query(description="Also what is over and what was undone; newest first.")] = False,
        detector: Annotated[int | None, Query(ge=0, le=100_000, description="Only this one.")] = None,
        before: Annotated[int | None, Query(gt=0, le=2**53, description="Of the history: older than this.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> ExclusionsView:
        """Return detectors and amps that are switched off, with reason, author and validity."""
        now = datetime.now(UTC)
        check_detector(camera, detector)
        if history:
            found = await reader.ask_results(
                lambda: store.history(camera.name, detector=detector, limit=limit, before=before)
            )
        else:
            found = await reader.ask_results(lambda: store.not_over(camera.name, next_exposure(now)))
            found = [one for one in found if detector is None or one.detector == detector]
        return viewed(found, now)

    @router.get("/api/exclusions/{exclusion_id}", summary="One exclusion", responses=errors | missing)
    async def exclusion(exclusion_id: ExclusionId) -> ExclusionView:
        """Return one exclusion, whether it still holds or not."""
        found = await reader.ask_results(lambda: store.get(camera.name, exclusion_id))
        return viewed([found], datetime.now(UTC)).exclusions[0]

    @router.post(
        "/api/exclusions", status_code=201, summary="Switch detectors or amps off", responses=errors | change_errors
    )
    async def exclude(
        request: ExclusionRequest, who: Annotated[Principal, Depends(access.may_change)], response: Response
    ) -> ExclusionsView:
        """Switch detectors or amps off: all that are named, or none. Applies to the next exposure."""
        now = datetime.now(UTC)
        try:
            targets = parse_targets(request.targets, camera)
            begin = parse_bound(request.valid_from, "valid_from") if request.valid_from else next_exposure(now)
            end = parse_bound(request.valid_to, "valid_to", is_end=True) if request.valid_to else None
            made = await asyncio.to_thread(
                lambda: store.exclude(
                    camera.name,
                    targets,
                    reason=request.reason,
                    author=who.name,
                    valid_from=begin,
                    valid_to=end,
                    now=now,
                )
            )
        except ExclusionError as error:
            raise BadRequestError(error.field, error.reason) from error
        await tell(made, "excluded")
        response.headers["Location"] = f"/api/exclusions/{made[0].id}"
        return viewed(made, now)

    @router.delete(
        "/api/exclusions/{exclusion_id}",
        summary="Switch something on again",
        responses=errors | missing | change_errors,
    )
    async def end(
        exclusion_id: ExclusionId,
        who: Annotated[Principal, Depends(access.may_change)],
        reason: Annotated[str, Query(max_length=MAX_REASON, description="Why; for the history.")] = "",
        at: Annotated[
            str | None, Query(max_length=64, description="First time it is on again; the next exposure if left out.")
        ] = None,
        undo: Annotated[bool, Query(description="As if it had never been: it was a mistake.")] = False,
    ) -> ExclusionView:
        """End an exclusion. It stays in the history, with who ended it; nothing is deleted."""
        now = datetime.now(UTC)
        try:
            moment = parse_bound(at, "at") if at else next_exposure(now)
            ended = await asyncio.to_thread(
                lambda: store.end(camera.name, exclusion_id, by=who.name, at=moment, now=now, reason=reason, undo=undo)
            )
        except ExclusionError as error:
            raise BadRequestError(error.field, error.reason) from error
        await tell([ended], "undone" if undo else "ended")
        return viewed([ended], now).exclusions[0]

    return router
