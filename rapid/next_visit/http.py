"""The HTTP door for announcements: reading is open to everybody, a change needs what every change over HTTP needs."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ValidationError

from rapid.access import Access, Principal, UnauthorizedError, status_of
from rapid.errors import RapidError, StoreError
from rapid.next_visit.desk import VisitDesk
from rapid.next_visit.models import NextVisit, NextVisitCanceled, messages_of

MAX_BODY_BYTES = 1 << 20


def visit_router(desk: VisitDesk, access: Access) -> APIRouter:
    """Return ``POST /next_visit``, ``POST /next_visit_canceled`` and ``GET /next_visits``.

    Announcements of other instruments are counted and left out: one subscription serves all cameras.
    """
    router = APIRouter()

    def may_change(request: Request) -> Principal:
        try:
            return access.may_change(request)
        except RapidError as error:
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, UnauthorizedError) else None
            raise HTTPException(status_of(error), error.message, headers=headers) from None

    May = Annotated[Principal, Depends(may_change)]

    @router.post("/next_visit", status_code=202)
    async def next_visit(request: Request, who: May) -> dict[str, int]:
        """Take in announcements; each is valid, or none is taken."""
        visits = await _parsed(request, NextVisit)
        ours = [visit for visit in visits if visit.instrument == desk.camera]
        n_new = sum([await _asked(desk.announce(visit, by=who.name)) for visit in ours])
        return {"announced": n_new, "known": len(ours) - n_new, "ignored": len(visits) - len(ours)}

    @router.post("/next_visit_canceled", status_code=202)
    async def next_visit_canceled(request: Request, who: May) -> dict[str, int]:
        """Take announcements back."""
        canceled = await _parsed(request, NextVisitCanceled)
        n_gone = sum([await _asked(desk.cancel(one, by=who.name)) for one in canceled])
        return {"canceled": n_gone, "unknown": len(canceled) - n_gone}

    @router.get("/next_visits")
    async def next_visits() -> list[dict[str, Any]]:
        """Return the announcements that count, and what has come of them."""
        return [state.model_dump(mode="json") for state in await _asked(desk.states())]

    return router


async def _parsed(request: Request, kind: type[BaseModel]) -> list[Any]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"at most {MAX_BODY_BYTES} bytes")
    try:
        return [kind.model_validate(one) for one in messages_of(json.loads(body))]
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise HTTPException(
            422, [{"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in found]
        ) from None
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body is no JSON") from None


async def _asked(answer: Any) -> Any:
    try:
        return await answer
    except StoreError as error:
        raise HTTPException(503, error.message, headers={"Retry-After": "2"}) from None
