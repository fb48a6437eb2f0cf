"""Bad exposures, rules and calibs over HTTP: what is left out of builds and why, and what something bad has touched."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, computed_field

from rapid.access import CHANGE_ERRORS, Access, BadRequestError, ErrorAnswer, Principal
from rapid.dispatch.models import EventKind
from rapid.display.asked import check_day
from rapid.display.hub import Hub, Message
from rapid.display.reader import Reader
from rapid.errors import StoreError
from rapid.exclusions.bad_exposures import MAX_EXPOSURES, BadExposure, BadExposureStore
from rapid.exclusions.decide import parse_targets
from rapid.exclusions.models import MAX_REASON, ExclusionError
from rapid.exclusions.rule_store import ExclusionRule, RuleStore
from rapid.exclusions.rules import MAX_LENGTH
from rapid.provenance.models import Affected, AffectedError
from rapid.provenance.store import ProvenanceStore

Answers = dict[int | str, dict[str, Any]]
Number = Annotated[int, Path(gt=0, le=2**53)]
ExposureNumber = Annotated[int, Field(gt=0, le=9999_12_31_99999)]
Day = Annotated[int, Field(ge=19700101, le=99991231)]
MAX_SHOWN = 500


class AffectedView(Affected):
    """What something bad has touched, with its size."""

    @computed_field  # type: ignore[prop-decorator]  # a property is what it computes
    @property
    def n_results(self) -> int:
        """Results of single detectors."""
        return sum(len(batch.detectors) for batch in self.batches)

    @computed_field  # type: ignore[prop-decorator]  # a property is what it computes
    @property
    def n_exposures(self) -> int:
        """Exposures with such results."""
        return len({batch.exposure for batch in self.batches})


class ExposureExclusionRequest(BaseModel):
    """Exposures that nothing is to be built from."""

    model_config = ConfigDict(extra="forbid")

    exposures: list[ExposureNumber] = Field(min_length=1, max_length=MAX_EXPOSURES)
    detectors: list[int | str] = Field(default=[], max_length=300, description="Every detector if left out.")
    reason: str = Field(min_length=1, max_length=MAX_REASON)


class RuleRequest(BaseModel):
    """A rule on metrics."""

    model_config = ConfigDict(extra="forbid")

    expression: str = Field(
        min_length=1, max_length=MAX_LENGTH, description="For example: bias_mean_adu > 5 and detector in R22"
    )
    reason: str = Field(min_length=1, max_length=MAX_REASON)
    first_day: Day = Field(description="First observing day it looks at.")
    last_day: Day | None = None


class RulePreview(BaseModel):
    """A rule to try."""

    model_config = ConfigDict(extra="forbid")

    expression: str = Field(min_length=1, max_length=MAX_LENGTH)
    first_day: Day
    last_day: Day | None = None


class FoundView(BaseModel):
    """One detector of one exposure that a rule finds."""

    exposure: int
    detector: int
    detector_name: str
    image_type: str
    found: str = Field(description="What it found: C00: read_noise = 12.3.")


class PreviewView(BaseModel):
    """What a rule would exclude."""

    n_found: int
    found: list[FoundView] = Field(description="The first 500.")


class RuleView(BaseModel):
    """A rule and what it excluded when it was made."""

    rule: ExclusionRule
    n_found: int


def bad_input_routes(access: Access, engine: sa.Engine, reader: Reader, hub: Hub) -> APIRouter:
    """Return the routes of bad exposures, rules, and what something bad has touched."""
    router = APIRouter(tags=["calibrations"])
    camera = reader.camera
    exposures, rules, provenance = BadExposureStore(engine), RuleStore(engine), ProvenanceStore(engine)
    changes: Answers = {**CHANGE_ERRORS, 409: {"model": ErrorAnswer, "description": "Somebody else was first."}}
    errors: Answers = {503: {"model": ErrorAnswer, "description": "The results store does not answer."}}
    missing: Answers = {404: {"model": ErrorAnswer, "description": "There is none of that number."}}
    invalid: Answers = {422: {"model": ErrorAnswer, "description": "What was asked for is not valid; field says what."}}

    async def tell(what: str, names: list[str]) -> None:
        data = {"what": what, "names": names[:100]}
        try:
            await reader.ask_board(reader.board.publish(EventKind.EXCLUSION_CHANGED, data=data))
        except StoreError:
            hub.publish(Message.make("exclusions", data))

    async def affected_by(**source: Any) -> AffectedView:
        try:
            found = await reader.ask_results(lambda: provenance.affected(camera.name, **source))
        except AffectedError as error:
            raise BadRequestError(error.field, error.reason) from error
        return AffectedView(**dict(found))

    @router.get("/api/calibs/{calib_id}/affected", summary="What a calib has touched", responses=errors | invalid)
    async def affected_by_calib(calib_id: Annotated[str, Path(max_length=200)]) -> AffectedView:
        """Return results and calibs that used a calib, at first or second hand; ``*`` in the id stands for anything.

        To have them done again: ``POST /api/requests`` with ``{"select": {"affected": {"calib": ID}}}``.
        """
        return await affected_by(calib=calib_id)

    @router.get("/api/exposures/{exposure}/affected", summary="What an exposure has touched", responses=errors)
    async def affected_by_exposure(
        exposure: Annotated[int, Path(gt=0, le=9999_12_31_99999)],
    ) -> AffectedView:
        """Return calibs that were built from an exposure, and what used them."""
        return await affected_by(exposure=exposure)

    @router.get("/api/exposure-exclusions", summary="Exposures that nothing is built from", responses=errors)
    async def bad_exposures(
        history: Annotated[bool, Query(description="Also what was undone.")] = False,
        exposure: Annotated[int | None, Query(gt=0, le=9999_12_31_99999)] = None,
        day_obs: Annotated[int | None, Query(ge=19700101, le=99991231)] = None,
        rule: Annotated[int | None, Query(gt=0, le=2**53)] = None,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> list[BadExposure]:
        """Return them newest first, with reason and author, or the rule that found them."""
        check_day("day_obs", day_obs)
        if exposure is not None:
            check_day("exposure", exposure // 100_000)
        return await reader.ask_results(
            lambda: exposures.listed(
                camera.name, exposure=exposure, day_obs=day_obs, rule=rule, with_history=history, limit=limit
            )
        )

    @router.post(
        "/api/exposure-exclusions", status_code=201, summary="Leave exposures out of builds", responses=errors | changes
    )
    async def exclude(
        request: ExposureExclusionRequest, who: Annotated[Principal, Depends(access.may_change)]
    ) -> list[BadExposure]:
        """Exclude all that are named, or none. Results and displays stay; what was built is done again by a request."""
        try:
            targets = parse_targets(request.detectors, camera) if request.detectors else []
            made = await asyncio.to_thread(
                lambda: exposures.exclude(
                    camera.name,
                    request.exposures,
                    targets=targets,
                    reason=request.reason,
                    author=who.name,
                    now=datetime.now(UTC),
                )
            )
        except ExclusionError as error:
            # What is a target to the rule is called detectors in the body.
            raise BadRequestError(error.field.replace("targets", "detectors"), error.reason) from error
        await tell("exposures excluded", [one.name for one in made])
        return made

    @router.delete(
        "/api/exposure-exclusions/{number}",
        summary="Build from an exposure again",
        responses=errors | missing | changes,
    )
    async def include(
        number: Number,
        who: Annotated[Principal, Depends(access.may_change)],
        reason: Annotated[str, Query(max_length=MAX_REASON)] = "",
    ) -> BadExposure:
        """Undo an exclusion. It stays in the history, with who undid it."""
        try:
            undone = await asyncio.to_thread(
                lambda: exposures.undo(camera.name, number, by=who.name, now=datetime.now(UTC), reason=reason)
            )
        except ExclusionError as error:
            raise BadRequestError(error.field, error.reason) from error
        await tell("exposures included", [undone.name])
        return undone

    @router.get("/api/exclusion-rules", summary="Rules on metrics", responses=errors)
    async def all_rules(
        history: Annotated[bool, Query(description="Also those that were ended.")] = False,
    ) -> list[ExclusionRule]:
        """Return the rules that leave exposures out of builds."""
        return await reader.ask_results(lambda: rules.listed(camera.name, with_history=history))

    @router.post("/api/exclusion-rules/preview", summary="Try a rule", responses=errors | invalid)
    async def preview(request: RulePreview) -> PreviewView:
        """Return what a rule would find; nothing is changed."""
        try:
            found = await asyncio.to_thread(
                lambda: rules.preview(
                    camera.name, request.expression, first_day=request.first_day, last_day=request.last_day
                )
            )
        except ExclusionError as error:
            raise BadRequestError("expression", error.reason) from error
        shown = [
            FoundView(
                exposure=result.exposure,
                detector=result.detector,
                detector_name=result.detector_name,
                image_type=result.image_type,
                found=str(finding),
            )
            for result, finding in found[:MAX_SHOWN]
        ]
        return PreviewView(n_found=len(found), found=shown)

    @router.post("/api/exclusion-rules", status_code=201, summary="Make a rule", responses=errors | changes)
    async def add_rule(
        request: RuleRequest, who: Annotated[Principal, Depends(access.may_change)], response: Response
    ) -> RuleView:
        """Make a rule: it looks at what is stored of its days now, and at what comes before each build."""
        try:
            rule, found = await asyncio.to_thread(
                lambda: rules.add(
                    camera.name,
                    request.expression,
                    reason=request.reason,
                    author=who.name,
                    first_day=request.first_day,
                    last_day=request.last_day,
                    now=datetime.now(UTC),
                )
            )
        except ExclusionError as error:
            field = "expression" if error.field == "rule" else error.field
            raise BadRequestError(field, error.reason) from error
        await tell("rule made", [one.name for one in found])
        response.headers["Location"] = f"/api/exposure-exclusions?rule={rule.id}"
        return RuleView(rule=rule, n_found=len(found))

    @router.delete("/api/exclusion-rules/{number}", summary="End a rule", responses=errors | missing | changes)
    async def end_rule(
        number: Number,
        who: Annotated[Principal, Depends(access.may_change)],
        reason: Annotated[str, Query(max_length=MAX_REASON)] = "",
        undo: Annotated[bool, Query(description="Build again from what it has found.")] = False,
    ) -> ExclusionRule:
        """End a rule; it stays in the history."""
        try:
            ended = await asyncio.to_thread(
                lambda: rules.end(camera.name, number, by=who.name, now=datetime.now(UTC), reason=reason, undo=undo)
            )
        except ExclusionError as error:
            raise BadRequestError(error.field, error.reason) from error
        await tell("rule ended", [str(number)])
        return ended

    return router
