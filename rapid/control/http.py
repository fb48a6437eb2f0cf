"""The control state over HTTP: read it, change it, save patterns by name, and preview them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from rapid.access import (
    CHANGE_ERRORS,
    Access,
    BadRequestError,
    ConflictError,
    ErrorAnswer,
    PreconditionError,
    Principal,
)
from rapid.control.models import ControlChange, ControlDocument
from rapid.control.rules import MAX_REASON
from rapid.control.store import LOG_KEPT, AsyncControlStore, VersionChangedError
from rapid.errors import ConfigurationError, NotFoundError
from rapid.patterns import PatternError, describe_patterns, parse_pattern

DOOR = "http"

Name = Annotated[str, Path(max_length=64, description="Name: small letters, digits and underscores.")]
Reason = Annotated[str, Query(max_length=MAX_REASON, description="Why, for the audit log.")]
Door = Annotated[
    Literal["display"] | None,
    Header(alias="X-Rapid-Door", description="display, if one of its pages asks: for the audit log."),
]
IfMatch = Annotated[
    str | None,
    Header(max_length=64, description="The version the change is made for, as the ETag of the answer to GET."),
]

READ_ERRORS: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorAnswer, "description": "A parameter is not valid; `field` says which."},
    503: {"model": ErrorAnswer, "description": "The board does not answer."},
}
ERRORS: dict[int | str, dict[str, Any]] = (
    READ_ERRORS
    | CHANGE_ERRORS
    | {
        409: {"model": ErrorAnswer, "description": "Not now: something under way, or somebody else, forbids it."},
        412: {"model": ErrorAnswer, "description": "The control state is no longer at the version of If-Match."},
    }
)


class PatternBody(BaseModel):
    """A pattern to save."""

    model_config = ConfigDict(extra="forbid")

    expression: str = Field(min_length=1, max_length=4096, description="Pattern expression, or a list of detectors.")


class PatternPreview(BaseModel):
    """What a pattern selects."""

    expression: str = Field(description="The expression in its canonical form.")
    phase: int
    phases: int = Field(description="How many different phases it has.")
    detectors: list[int] = Field(description="Numbers of the detectors that this phase selects.")


class PatternFacts(BaseModel):
    """A pattern that has a name."""

    name: str
    usage: str
    aliases: list[str]
    description: str
    needs_arguments: bool
    saved: bool
    expression: str | None = None
    sizes: list[int] | None = Field(default=None, description="Detectors in each phase; none if it needs arguments.")
    phases: int | None = None


@asynccontextmanager
async def _refusals(*, has_version: bool = False) -> AsyncIterator[None]:
    """Give refusals of the store the form that HTTP has for them."""
    try:
        yield
    except ConfigurationError as error:
        reason = error.message.removeprefix(f"{error.field}: ")
        raise BadRequestError(error.field, reason) from error
    except VersionChangedError as error:
        if has_version:
            raise PreconditionError(error.message) from error
        raise


def _version_of(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = re.fullmatch(r'\s*(?:W/)?"?(\d{1,9})"?\s*', if_match, re.ASCII)
    if found is None:
        raise BadRequestError("If-Match", "must be a version, as in the ETag of the answer to GET")
    return int(found[1])


def _tag(response: Response, document: ControlDocument) -> ControlDocument:
    response.headers["ETag"] = f'"{document.version}"'
    response.headers["Cache-Control"] = "no-store"
    return document


def control_routes(store: AsyncControlStore, access: Access) -> APIRouter:
    """Return the routes below ``/api/control`` and ``/api/patterns``.

    Parameters
    ----------
    store
        The control state. Its camera and pipelines decide what is valid.
    access
        Who may change it.
    """
    router = APIRouter(tags=["control"])
    May = Annotated[Principal, Depends(access.may_change)]

    @router.get("/api/control", summary="The control state in force", responses=READ_ERRORS)
    async def read(response: Response) -> ControlDocument:
        """Return what is done with the next exposure, and who made it so. The ETag is its version."""
        return _tag(response, await store.read())

    @router.get("/api/control/history", summary="Who changed what", responses=READ_ERRORS)
    async def history(
        limit: Annotated[int, Query(ge=1, le=LOG_KEPT, description="How many, newest first.")] = 50,
    ) -> list[ControlChange]:
        """Return the audit log, newest change first."""
        return await store.history(limit)

    @router.patch("/api/control", summary="Change the control state", responses=ERRORS)
    async def change(
        who: May,
        response: Response,
        patch: Annotated[
            dict[str, Any],
            Body(
                description="JSON merge patch: null takes a field back to its default.",
                examples=[{"pattern": "ccd_checkerboard", "visit_mode": "alternating", "timeouts": {"gather_s": 8}}],
            ),
        ],
        reason: Reason = "",
        if_match: IfMatch = None,
        door: Door = None,
    ) -> ControlDocument:
        """Change some fields; applies to the next exposure. Returns the state as it now is."""
        version = _version_of(if_match)
        async with _refusals(has_version=version is not None):
            document = await store.change(
                patch, by=who.name, door=door or DOOR, reason=reason, expected_version=version
            )
        return _tag(response, document)

    @router.post("/api/control/patterns/{name}", summary="Save a pattern by name", responses=ERRORS)
    async def save_pattern(
        who: May, response: Response, name: Name, body: PatternBody, reason: Reason = "", door: Door = None
    ) -> ControlDocument:
        """Save a pattern, or replace the one of that name."""
        async with _refusals():
            document = await store.change(
                {"patterns": {name: body.expression}}, by=who.name, door=door or DOOR, reason=reason
            )
        return _tag(response, document)

    @router.delete(
        "/api/control/patterns/{name}",
        summary="Forget a saved pattern",
        responses=ERRORS | {404: {"model": ErrorAnswer, "description": "No pattern was saved under this name."}},
    )
    async def forget_pattern(
        who: May, response: Response, name: Name, reason: Reason = "", door: Door = None
    ) -> ControlDocument:
        """Forget a saved pattern; refused while another field uses it."""
        document = await store.read()
        if name not in document.state.patterns:
            raise NotFoundError("saved pattern", name, ", ".join(sorted(document.state.patterns)))
        try:
            async with _refusals():
                document = await store.change({"patterns": {name: None}}, by=who.name, door=door or DOOR, reason=reason)
        except BadRequestError as error:
            raise ConflictError(f"{name} is in use: {error.message}", field=error.field) from error
        return _tag(response, document)

    @router.get("/api/patterns", summary="Patterns that have a name, or the detectors of one", responses=READ_ERRORS)
    async def patterns(
        expression: Annotated[str | None, Query(max_length=4096, description="Pattern to preview.")] = None,
        phase: Annotated[int, Query(ge=0, le=1_000_000, description="Which phase of it.")] = 0,
    ) -> list[PatternFacts] | PatternPreview:
        """Return what an expression selects; without one, every built-in and saved pattern."""
        saved = (await store.read()).state.patterns
        if expression is None:
            return [PatternFacts.model_validate(facts) for facts in describe_patterns(store.camera, saved)]
        try:
            pattern = parse_pattern(expression)
            return PatternPreview(
                expression=str(pattern),
                phase=phase,
                phases=pattern.phases(store.camera, saved),
                detectors=sorted(pattern.detectors(store.camera, phase, saved)),
            )
        except PatternError as error:
            raise BadRequestError("expression", error.message.removeprefix(f"{error.field}: ")) from error

    return router
