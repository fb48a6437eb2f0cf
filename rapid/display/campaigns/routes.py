"""Campaigns over HTTP: begin one, see how far it is, what has no result and what has changed; go on with it, cancel it."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.responses import HTMLResponse, JSONResponse

from rapid import access as access_module
from rapid.access import CHANGE_ERRORS, Access, ErrorAnswer, Principal, error_document
from rapid.campaign.holes import HolesReport, find_holes
from rapid.campaign.plan import Listing, nights_of
from rapid.campaign.records import find_campaign, list_campaigns, read_nights, resumption_of, selection_of
from rapid.control.store import AsyncControlStore
from rapid.display.api import ERRORS, DayObs
from rapid.display.campaigns.compare import RunComparer
from rapid.display.campaigns.models import CampaignList, CampaignOrder, CampaignView, RunComparison, request_of
from rapid.display.reader import Reader
from rapid.errors import NotFoundError
from rapid.pipeline.models import PipelineBook
from rapid.requests.archive import RequestArchive
from rapid.requests.checks import check_spec
from rapid.requests.faults import BadRequestError, QueueFullError
from rapid.requests.http import ACCEPT_S, FULL, post_and_hear, queue_full, schema_for_openapi
from rapid.requests.models import PROMPT, RUN, RequestRecord, RequestSpec, RequestState
from rapid.requests.reading import read_json, read_spec
from rapid.requests.store import AsyncRequestBoard
from rapid.results.store import ResultsStore

MAX_NIGHTS = 31
"""Nights whose holes are told in one answer."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
Name = Annotated[str, Path(pattern=NAME, description="The campaign's name, or the id of one of its requests.")]
Run = Annotated[str, Query(pattern=RUN, description="A run: prompt, or a campaign.")]
Nights = Annotated[
    list[str] | None, Query(max_length=400, description="Nights or ranges FIRST-LAST; all of the campaign's if empty.")
]
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such campaign."}}


class CampaignDoor:
    """What the routes ask of stores and board.

    Parameters
    ----------
    listing
        Where raws are looked up; None if the display has not been told.
    """

    def __init__(
        self,
        reader: Reader,
        results: ResultsStore,
        requests: AsyncRequestBoard,
        book: PipelineBook,
        control: AsyncControlStore,
        *,
        listing: Listing | None,
        comparer: RunComparer,
    ) -> None:
        self._reader = reader
        self._results = results
        self._requests = requests
        self._book = book
        self._control = control
        self._listing = listing
        self._archive = RequestArchive(results.engine)
        self._camera = reader.camera
        self._searching = asyncio.Lock()
        self.comparer = comparer

    async def all(self) -> list[CampaignView]:
        """Return every campaign as it stands."""
        records = await self._reader.ask_results(lambda: list_campaigns(self._archive, self._camera.name))
        return [CampaignView.of(await self._live(record), with_reasons=False) for record in records]

    async def find(self, name: str) -> RequestRecord:
        """Return a campaign as it stands; raises `NotFoundError`."""
        return await self._live(
            await self._reader.ask_results(lambda: find_campaign(self._archive, self._camera.name, name))
        )

    async def _live(self, record: RequestRecord) -> RequestRecord:
        """Return what the board says of one under way: the store is told of its end only."""
        if record.state.is_final:
            return record
        try:
            return await self._reader.ask_board(self._requests.read(record.request_id))
        except NotFoundError:
            return record  # of a board that was emptied: its head has not put it back yet

    async def nights(self, name: str, named: list[str] | None) -> list[int]:
        """Return the nights of a campaign, or those that are named."""
        record = await self.find(name)
        campaign = selection_of(record)
        stored = frozenset(day for day, _ in await self._stored_nights())
        if named:
            return _readable(named, stored)
        return list(nights_of(campaign, stored)) if campaign is not None else []

    async def _stored_nights(self) -> list[tuple[int, int]]:
        return await self._reader.ask_results(lambda: self._results.nights(self._camera.name))

    async def holes(self, nights: list[int], run: str) -> list[HolesReport]:
        """Return what of some nights has no result, with the reasons.

        Raises
        ------
        BadRequestError
            Raised for more nights than one answer tells of.
        """
        if len(nights) > MAX_NIGHTS:
            raise access_module.BadRequestError("night", f"{len(nights)} nights: ask for {MAX_NIGHTS} at a time")
        # A folder of a night's raws is walked through: one after the other.
        async with self._searching:
            return [
                await self._reader.ask_results(
                    lambda day=day: find_holes(  # type: ignore[misc] # bound at once
                        day, results=self._results, camera=self._camera, listing=self._listing, run=run
                    )
                )
                for day in nights
            ]

    async def post(self, document: Any, *, by: str) -> RequestRecord:
        """Post a campaign's request, and return what is heard of it within a moment.

        Raises
        ------
        BadRequestError, QueueFullError
            Raised if it is not taken, naming the field.
        """
        spec = document if isinstance(document, RequestSpec) else read_spec(document)
        named = (await self._control.read()).state.patterns if isinstance(spec.detectors, str) else {}
        await asyncio.to_thread(lambda: check_spec(spec, self._camera, self._book, named=named))
        record = await post_and_hear(self._requests, spec, by=by, door="http")
        if record.state is not RequestState.REFUSED or record.error is None:
            # One that no head has taken in yet says nothing of itself.
            return record.model_copy(update={"spec": record.spec or spec, "run": record.run or spec.run})
        if record.error.code == "queue_full":
            raise QueueFullError(record.error.message)
        raise BadRequestError(record.error.field or "", record.error.message.removeprefix(f"{record.error.field}: "))

    async def cancel(self, name: str, *, by: str) -> RequestRecord:
        """Cancel a campaign that has not ended; return it as it stands then."""
        record = await self.find(name)
        if record.state.is_final:
            return record
        await self._requests.cancel(record.request_id, by=by)
        ended = await self._requests.wait(record.request_id, timeout_s=ACCEPT_S)
        return ended or await self._requests.read(record.request_id)


def _readable(named: list[str], stored: frozenset[int]) -> list[int]:
    try:
        return read_nights(named, stored)
    except BadRequestError as error:
        raise _as_http(error) from error


def _as_http(error: BadRequestError) -> access_module.BadRequestError:
    """Return a fault by the names that a campaign's order has."""
    reason = error.message.removeprefix(f"{error.field}: ")
    return access_module.BadRequestError(error.field.removeprefix("select.campaign."), reason)


def campaign_routes(door: CampaignDoor, access: Access) -> APIRouter:
    """Return the routes below ``/api/campaigns``, and ``/api/holes``."""
    router = APIRouter(tags=["campaigns"], responses=ERRORS)

    def accepted(request: Request, response: Response, record: RequestRecord) -> CampaignView:
        response.headers["Location"] = str(request.url_for("show_campaign", name=record.run or record.request_id).path)
        return CampaignView.of(record)

    @router.get("/api/campaigns", summary="Campaigns, newest first")
    async def campaigns() -> CampaignList:
        """Return every campaign with its state and progress: of one that was resumed, the newest request."""
        return CampaignList(campaigns=await door.all())

    @router.post(
        "/api/campaigns",
        summary="Begin a campaign",
        status_code=202,
        response_model=CampaignView,
        responses=CHANGE_ERRORS | FULL,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schema_for_openapi(CampaignOrder)}},
            }
        },
    )
    async def begin(request: Request, response: Response, who: Annotated[Principal, Depends(access.may_change)]) -> Any:
        """Process nights again as backlog: `{"run": "newpsf", "nights": [20261120], "where": "airmass < 1.5"}`."""
        try:
            document = request_of(read_json(await request.body(), what="campaign"))
            return accepted(request, response, await door.post(document, by=who.name))
        except BadRequestError as error:
            raise _as_http(error) from error
        except QueueFullError as error:
            return queue_full(error)

    @router.get("/api/campaigns/{name}", summary="One campaign", responses=NOT_FOUND)
    async def show_campaign(name: Name) -> CampaignView:
        """Return a campaign as it stands, with what is missing of its exposures once it has ended."""
        return CampaignView.of(await door.find(name))

    @router.post(
        "/api/campaigns/{name}/resume",
        summary="Go on with a campaign",
        status_code=202,
        response_model=CampaignView,
        responses=CHANGE_ERRORS | FULL | NOT_FOUND,
    )
    async def resume(
        name: Name, request: Request, response: Response, who: Annotated[Principal, Depends(access.may_change)]
    ) -> Any:
        """Go on with one that has ended: what is stored stays, what failed is tried once more."""
        try:
            return accepted(request, response, await door.post(resumption_of(await door.find(name)), by=who.name))
        except BadRequestError as error:
            if "under way" in error.message:
                return JSONResponse(error_document("conflict", error.message, error.field), status_code=409)
            raise _as_http(error) from error
        except QueueFullError as error:
            return queue_full(error)

    @router.delete(
        "/api/campaigns/{name}",
        summary="Cancel a campaign",
        status_code=202,
        responses=CHANGE_ERRORS | NOT_FOUND,
    )
    async def cancel(name: Name, who: Annotated[Principal, Depends(access.may_change)]) -> CampaignView:
        """Take what has not started off the board; results stay. One that has ended stays as it is."""
        return CampaignView.of(await door.cancel(name, by=who.name))

    @router.get("/api/campaigns/{name}/holes", summary="What of a campaign has no result", responses=NOT_FOUND)
    async def holes(name: Name, night: Nights = None) -> list[HolesReport]:
        """Return by night, exposure and pipeline the detectors without a result, and why."""
        record = await door.find(name)
        return await door.holes(await door.nights(name, night), record.run)

    @router.get("/api/holes/{day_obs}", summary="What of a night has no result")
    async def holes_of_night(day_obs: DayObs, run: Run = PROMPT) -> HolesReport:
        """Return by exposure and pipeline the detectors of a night without a result under a run, and why."""
        nights = _readable([str(day_obs)], frozenset())
        return (await door.holes(nights, run))[0]

    @router.get(
        "/api/campaigns/{name}/compare",
        summary="A campaign beside another run",
        response_model=RunComparison,
        responses=NOT_FOUND | {200: {"content": {"text/html": {}}}},
    )
    async def compare(
        name: Name,
        before: Run = PROMPT,
        night: Nights = None,
        rel: Annotated[
            float, Query(ge=0, le=1e6, description="What is allowed, of the earlier value.", allow_inf_nan=False)
        ] = 1e-3,
        page: Annotated[bool, Query(description="Answer with an HTML page with plots.")] = False,
    ) -> Any:
        """Hold every metric of every detector and summary against the same of another run."""
        record = await door.find(name)
        nights = await door.nights(name, night)
        if not page:
            return await door.comparer.compare(before, record.run, nights=nights, rel=rel)
        text = await door.comparer.page(before, record.run, nights=nights, rel=rel)
        return HTMLResponse(text, headers={"Cache-Control": "no-store"})

    return router
