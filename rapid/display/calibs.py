"""Calibs and verifications over HTTP: everybody may look; who has a token decides which calibs look-ups choose."""

import asyncio
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from rapid.access import CHANGE_ERRORS, Access, BadRequestError, ErrorAnswer, Principal
from rapid.dispatch.models import EventKind
from rapid.display.asked import check_detector, check_filter, check_kind
from rapid.display.hub import Hub, Message
from rapid.display.reader import Reader
from rapid.errors import NotFoundError, StoreError
from rapid.requests.calibs import (
    CalibRefusedError,
    CalibStanding,
    certify_calibs,
    reject_calibs,
    verify_calibs,
    withdraw_calibs,
)
from rapid.results.models import CalibEvent, CalibRecord, CalibState
from rapid.results.store import ResultsStore
from rapid.verification.decide import roll_up_results
from rapid.verification.layout import as_json, as_yaml, detector_layout, exposure_layout
from rapid.verification.models import Verification
from rapid.verification.thresholds import load_thresholds

Answers = dict[int | str, dict[str, Any]]
CalibId = Annotated[str, Path(min_length=1, max_length=200)]


class CalibView(CalibRecord):
    """A calib, and how it came to its state."""

    history: list[CalibEvent] = Field(description="Every change of its state, oldest first.")


class CalibStateRequest(BaseModel):
    """What is to become of a calib."""

    model_config = ConfigDict(extra="forbid")

    state: CalibState = Field(description="certified, rejected or withdrawn.")
    reason: str = Field(
        default="", max_length=1000, description="Why: is written down. Only a calib that passed needs none."
    )
    override: bool = Field(default=False, description="Certify it though it did not pass its verification.")


def calib_routes(
    access: Access,
    results: ResultsStore,
    reader: Reader,
    hub: Hub,
    *,
    run: str = "prompt",
    thresholds: FilePath | None = None,
) -> APIRouter:
    """Return the routes below ``/api/calibs`` and ``/api/verification``."""
    router = APIRouter(tags=["calibrations"])
    camera = reader.camera
    errors: Answers = {503: {"model": ErrorAnswer, "description": "The results store does not answer."}}
    invalid: Answers = {422: {"model": ErrorAnswer, "description": "There is no such kind, detector or filter."}}
    missing: Answers = {404: {"model": ErrorAnswer, "description": "There is no such calib, or nothing was verified."}}

    async def tell(what: str, calib_id: str) -> None:
        data = {"what": what, "calibs": [calib_id]}
        try:
            await reader.ask_board(reader.board.publish(EventKind.CALIB_CERTIFIED, data=data))
        except StoreError:
            hub.publish(Message.make("calibs", data))

    @router.get("/api/calibs", summary="Calibs, the preferred one first", responses=errors | invalid)
    async def calibs(
        kind: Annotated[str | None, Query(max_length=32, description="bias, dark, flat, ptc, ...")] = None,
        detector: Annotated[int | None, Query(ge=0, le=100_000)] = None,
        physical_filter: Annotated[str | None, Query(max_length=64)] = None,
        state: Annotated[CalibState | None, Query(description="All if left out; with as_of, certified.")] = None,
        at: Annotated[datetime | None, Query(description="Only those valid then [TAI].")] = None,
        as_of: Annotated[datetime | None, Query(description="As the registry was then [UTC].")] = None,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> list[CalibRecord]:
        """Return calibs without the values of their verifications: one calib's are at its own address."""
        wanted = state or (CalibState.CERTIFIED if as_of else None)
        check_detector(camera, detector)

        def look() -> list[CalibRecord]:
            check_kind(results, camera, kind)
            check_filter(results, camera, physical_filter)
            return results.calibs(
                camera.name,
                kind=kind,
                detector=detector,
                physical_filter=physical_filter,
                at=at,
                as_of=as_of,
                state=wanted,
                limit=limit,
            )

        found = await reader.ask_results(look)
        return [record.model_copy(update={"verification": None, "provenance": None}) for record in found]

    async def view(calib_id: str) -> CalibView:
        def read() -> tuple[CalibRecord, list[CalibEvent]]:
            return results.calib(camera.name, calib_id), results.calib_events(camera.name, calib_id)

        record, history = await reader.ask_results(read)
        return CalibView(**record.model_dump(), history=history)

    @router.get("/api/calibs/{calib_id}", summary="One calib", responses=errors | missing)
    async def calib(calib_id: CalibId) -> CalibView:
        """Return a calib with inputs, provenance, verification and history."""
        return await view(calib_id)

    @router.post(
        "/api/calibs/{calib_id}/state",
        summary="Certify, reject or withdraw",
        responses=errors | missing | CHANGE_ERRORS,
    )
    async def set_state(
        calib_id: CalibId, wanted: CalibStateRequest, who: Annotated[Principal, Depends(access.may_change)]
    ) -> CalibView:
        """Change what look-ups may choose from now on. What was chosen before stays reproducible (``as_of``)."""

        def change() -> None:
            if wanted.state is CalibState.CERTIFIED:
                certify_calibs(
                    results, camera.name, [calib_id], author=who.name, reason=wanted.reason, override=wanted.override
                )
            elif wanted.state is CalibState.REJECTED:
                reject_calibs(results, camera.name, [calib_id], author=who.name, reason=wanted.reason)
            else:
                withdraw_calibs(results, camera.name, [calib_id], author=who.name, reason=wanted.reason)

        try:
            await asyncio.to_thread(change)
        except CalibRefusedError as error:
            field = "reason" if not wanted.reason.strip() else "override"
            raise BadRequestError(field, error.message) from error
        await tell(wanted.state.value, calib_id)
        return await view(calib_id)

    @router.post(
        "/api/calibs/{calib_id}/verification", summary="Verify anew", responses=errors | missing | CHANGE_ERRORS
    )
    async def verify(calib_id: CalibId, who: Annotated[Principal, Depends(access.may_change)]) -> CalibStanding:
        """Hold a calib against the thresholds in force on its day, as they are written now. Its state stays."""
        del who  # needs to be somebody; what it finds does not depend on who

        def again() -> CalibStanding:
            verify_calibs(results, camera, [calib_id], thresholds=thresholds)
            return CalibStanding.of(results.calib(camera.name, calib_id))

        standing = await reader.ask_results(again)
        await tell("verify", calib_id)
        return standing

    @router.get("/api/verification/{exposure}", summary="A verdict in cp_verify's layout", responses=errors | missing)
    async def verification(
        exposure: Annotated[int, Path(gt=0, le=9999_12_31_99999)],
        pipeline: Annotated[str | None, Query(max_length=64, description="bias, build_bias, ...")] = None,
        as_text: Annotated[str, Query(alias="format", pattern="^(json|yaml)$")] = "json",
    ) -> Response:
        """Return the verdict on a calibration exposure or on a build, with every amp's values below ``DETECTORS``."""

        def make() -> dict[str, Any]:
            found = results.results(exposure, camera=camera.name, run=run, pipeline=pipeline)
            verified = [result for result in found if result.verification is not None]
            names = sorted({result.pipeline for result in verified})
            chosen = next((name for name in names if not name.startswith("build_")), names[0] if names else "")
            verified = [result for result in verified if result.pipeline == chosen]
            verdict = roll_up_results(verified, camera=camera, thresholds=load_thresholds(thresholds))
            if verdict is None:
                raise NotFoundError("verification of exposure", exposure, owner=camera.name)
            document = exposure_layout(verdict)
            document["DETECTORS"] = {
                result.detector_name: detector_layout(Verification.from_stored(result.verification))
                for result in verified
            }
            return document

        document = await reader.ask_results(make)
        if as_text == "yaml":
            return Response(await asyncio.to_thread(as_yaml, document), media_type="application/yaml")
        return Response(as_json(document), media_type="application/json")

    return router
