"""Trends over HTTP: everybody may see how numbers went and what alarms there are; who has a token may acknowledge."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from rapid.access import CHANGE_ERRORS, Access, BadRequestError, ErrorAnswer, Principal
from rapid.display.asked import check_day, check_days, check_detector
from rapid.display.reader import Reader
from rapid.trends.alarms import MAX_REASON, AlarmError, AlarmStore
from rapid.trends.events import CalibBoundary, EventStore, ExclusionEvent
from rapid.trends.models import AlarmState, AmpDrift, NoTrendError, SeriesFacts, SeriesHistory
from rapid.trends.store import TrendStore

T = TypeVar("T")
Answers = dict[int | str, dict[str, Any]]
AlarmId = Annotated[int, Path(gt=0, le=2**53, description="Number of the alarm.")]
Metric = Annotated[str, Query(min_length=1, max_length=128, description="Name of the number, e.g. stdev_e.")]
ImageType = Annotated[str | None, Query(max_length=32, description="Only of bias, dark or flat.")]
Condition = Annotated[str | None, Query(max_length=128, description='Filter and exposure time: "r_57 4 s".')]
Pipeline = Annotated[str | None, Query(max_length=64, description="Only of this pipeline; build_bias for masters.")]
FirstDay = Annotated[int, Query(ge=19900101, le=99991231, description="First observing day.")]
LastDay = Annotated[int, Query(ge=19900101, le=99991231, description="Last observing day.")]


class AlarmsView(BaseModel):
    """Alarms, the newest change first."""

    n_open: int = Field(description="Open ones in all.")
    alarms: list[dict[str, Any]] = Field(description="Alarms with `target` and `text`, a sentence.")


class AcknowledgeRequest(BaseModel):
    """That somebody knows of an alarm."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=MAX_REASON, description="What it was, or what is done about it.")


class MetricsView(BaseModel):
    """All trends there are."""

    camera: str
    series: list[SeriesFacts]


class SeriesView(BaseModel):
    """A detector's numbers, and what happened beside them."""

    camera: str
    metric: str
    detector: int
    detector_name: str
    unit: str
    series: list[SeriesHistory]
    calibs: list[CalibBoundary]
    exclusions: list[ExclusionEvent]
    alarms: list[dict[str, Any]]


class DetectorDrift(BaseModel):
    """A detector's part of a map."""

    name: str
    amps: dict[str, AmpDrift]


class MapView(BaseModel):
    """How a number changed, for every amp."""

    camera: str
    metric: str
    image_type: str
    condition: str
    pipeline: str
    unit: str
    first_day: int
    last_day: int
    n_exposures: int
    detectors: dict[int, DetectorDrift]


def trend_routes(access: Access, engine: sa.Engine, reader: Reader) -> APIRouter:
    """Return the routes below ``/api/trends``."""
    router = APIRouter(tags=["trends"])
    camera = reader.camera
    store, alarm_store, event_store = TrendStore(engine), AlarmStore(engine), EventStore(engine)
    errors: Answers = {503: {"model": ErrorAnswer, "description": "The results store does not answer."}}
    missing: Answers = {404: {"model": ErrorAnswer, "description": "There is no such number, detector or alarm."}}
    change_errors: Answers = {**CHANGE_ERRORS, 409: {"model": ErrorAnswer, "description": "Somebody else was first."}}
    by_name = {detector.name: detector.id for detector in camera.detectors}

    def check_range(first_day: int, last_day: int) -> None:
        check_day("first_day", first_day)
        check_day("last_day", last_day)
        check_days(first_day, last_day)

    async def ask(question: Callable[[], T]) -> T:
        return await reader.ask_results(question)

    @router.get("/api/trends/metrics", summary="All numbers that are followed", responses=errors)
    async def metrics() -> MetricsView:
        """Return every number with its unit, image type, filter and exposure time, and its days."""

        def look() -> list[SeriesFacts]:
            store.update()
            return store.metrics(camera.name)

        return MetricsView(camera=camera.name, series=await ask(look))

    @router.get("/api/trends/series", summary="A detector's numbers over time", responses=errors | missing)
    async def series(
        metric: Metric,
        detector: Annotated[str, Query(min_length=1, max_length=32, description="Number or name: 94, R22_S11.")],
        amp: Annotated[str | None, Query(max_length=32, description="Only this amp.")] = None,
        image_type: ImageType = None,
        condition: Condition = None,
        pipeline: Pipeline = None,
        first_day: FirstDay = 19900101,
        last_day: LastDay = 99991231,
    ) -> SeriesView:
        """Return the numbers by amp, with calibs that became valid, exclusions and alarms."""
        number = by_name.get(detector, int(detector) if detector.isascii() and detector.isdigit() else -1)
        if number not in by_name.values():
            raise NoTrendError("detector", detector, owner=camera.name)
        check_range(first_day, last_day)

        def look() -> SeriesView:
            store.update()
            found = store.history(
                camera.name,
                metric,
                detector=number,
                amp=amp,
                image_type=image_type,
                condition=condition,
                pipeline=pipeline,
                first_day=first_day,
                last_day=last_day,
            )
            events = event_store.events(camera.name, found)
            return SeriesView(
                camera=camera.name,
                metric=metric,
                detector=number,
                detector_name=camera.by_id[number].name,
                unit=found[0].unit if found else "",
                series=found,
                calibs=events.calibs,
                exclusions=events.exclusions,
                alarms=[alarm.document() for alarm in events.alarms],
            )

        return await ask(look)

    @router.get("/api/trends/map", summary="How a number changed over the focal plane", responses=errors | missing)
    async def drift_map(
        metric: Metric,
        image_type: ImageType = None,
        condition: Condition = None,
        pipeline: Pipeline = None,
        first_day: FirstDay = 19900101,
        last_day: LastDay = 99991231,
    ) -> MapView:
        """Return first and last level, change and slope of every amp; of several series, the one with most exposures."""
        check_range(first_day, last_day)

        def look() -> MapView:
            store.update()
            found = store.drift_map(
                camera.name,
                metric,
                image_type=image_type,
                condition=condition,
                pipeline=pipeline,
                first_day=first_day,
                last_day=last_day,
            )
            return MapView(
                **found.key.model_dump(exclude={"run"}),
                unit=found.unit,
                first_day=found.first_day,
                last_day=found.last_day,
                n_exposures=found.n_exposures,
                detectors={
                    number: DetectorDrift(name=found.names[number], amps=amps) for number, amps in found.amps.items()
                },
            )

        return await ask(look)

    @router.get("/api/trends/alarms", summary="Changes that somebody should know of", responses=errors)
    async def alarms(
        state: Annotated[AlarmState | None, Query(description="Only these; all if left out.")] = None,
        metric: Annotated[str | None, Query(max_length=128)] = None,
        detector: Annotated[int | None, Query(ge=0, le=100_000)] = None,
        before: Annotated[int | None, Query(gt=0, le=2**53, description="Only with a smaller number.")] = None,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> AlarmsView:
        """Return alarms with the date, size and significance of the change, the newest change first."""
        check_detector(camera, detector)

        def look() -> AlarmsView:
            found = alarm_store.alarms(
                camera.name, state=state, metric=metric, detector=detector, before=before, limit=limit
            )
            return AlarmsView(n_open=alarm_store.n_open(camera.name), alarms=[alarm.document() for alarm in found])

        return await ask(look)

    @router.get("/api/trends/alarms/{alarm_id}", summary="One alarm", responses=errors | missing)
    async def alarm(alarm_id: AlarmId) -> dict[str, Any]:
        """Return one alarm, whatever became of it."""
        return (await ask(lambda: alarm_store.get(camera.name, alarm_id))).document()

    @router.post(
        "/api/trends/alarms/{alarm_id}/acknowledge",
        summary="Say that an alarm is known",
        responses=errors | missing | change_errors,
    )
    async def acknowledge(
        alarm_id: AlarmId, request: AcknowledgeRequest, who: Annotated[Principal, Depends(access.may_change)]
    ) -> dict[str, Any]:
        """Acknowledge an alarm: it is no longer open, and keeps who said so and why."""
        try:
            changed = await asyncio.to_thread(
                lambda: alarm_store.acknowledge(
                    camera.name, alarm_id, by=who.name, reason=request.reason, now=datetime.now(UTC)
                )
            )
        except AlarmError as error:
            raise BadRequestError(error.field, error.reason) from error
        return changed.document()

    return router
