"""What pages ask of nights and exposures, from memory where the night runs, else from the results store."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from rapid.camera.models import Camera
from rapid.dispatch.models import BatchKey
from rapid.display.catalogue import QUANTITIES, tiles_with
from rapid.display.live import LiveNight, day_obs_of
from rapid.display.models import (
    CameraView,
    DetectorPlace,
    DetectorView,
    ExposureRow,
    ExposureView,
    FailureView,
    MovieView,
    NightCount,
    NightView,
    NowView,
    StatusView,
)
from rapid.display.reader import Reader
from rapid.display.settings import DisplaySettings
from rapid.display.summaries import summaries_of_night
from rapid.display.timeline import Timeline, make_timeline
from rapid.errors import NotFoundError, StoreError
from rapid.gather.rollup import NightRollup, roll_up
from rapid.products.naming import night_key
from rapid.products.store import ProductsStore
from rapid.publish.store import get_sent
from rapid.results.models import DetectorState, ExposureSummary, QuarantineRecord
from rapid.results.store import ResultsStore

N_NIGHTS_KEPT = 4
"""Past nights kept as rows: a thousand exposures of 205 detectors take a second to read from the store."""


class Archive:
    """Answers for pages and JSON alike."""

    def __init__(
        self, settings: DisplaySettings, camera: Camera, reader: Reader, results: ResultsStore, products: ProductsStore
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._results = results
        self._products = products
        self._past: dict[int, tuple[int, list[ExposureRow]]] = {}
        self.camera = camera
        self.camera_view = camera_view(camera, settings)

    def now(self) -> NowView:
        """Return the newest exposure as it stands."""
        night = self._reader.night
        newest = night.newest
        return NowView(
            as_of=self._reader.as_of,
            server_time=datetime.now(UTC),
            camera=self.camera.name,
            day_obs=night.day_obs,
            cadence_s=self._reader.cadence_s,
            exposure=night.view(newest) if newest is not None else None,
            sources=self._reader.sources,
        )

    async def nights(self) -> list[NightCount]:
        """Return all nights, newest first; the running one with the exposures it has on the board."""
        stored = await self._reader.ask_results(lambda: self._results.nights(self.camera.name))
        counts = dict(stored)
        night = self._reader.night
        if night.day_obs is not None and night.tracks:
            counts[night.day_obs] = max(len(night.tracks), counts.get(night.day_obs, 0))
        return [NightCount(day_obs=day_obs, n_exposures=counts[day_obs]) for day_obs in sorted(counts, reverse=True)]

    async def night(self, day_obs: int) -> NightView:
        """Return a night, newest exposure first; an unknown one is empty."""
        known = sorted(count.day_obs for count in await self.nights())
        live = self._reader.night
        is_live = day_obs == live.day_obs
        return NightView(
            as_of=self._reader.as_of,
            day_obs=day_obs,
            is_live=is_live,
            previous=max((other for other in known if other < day_obs), default=None),
            next=min((other for other in known if other > day_obs), default=None),
            exposures=live.rows() if is_live else await self._past_rows(day_obs),
        )

    async def rollup(self, day_obs: int) -> NightRollup:
        """Return a night in numbers; of an unknown one, zeros."""
        summaries = await summaries_of_night(self._reader, day_obs)
        return await asyncio.to_thread(roll_up, self.camera.name, day_obs, summaries, run=self._settings.run)

    async def movie(self, day_obs: int) -> MovieView | None:
        """Return where a night's movie is, None while there is none."""
        keys = {
            extension: night_key(self.camera.name, day_obs, run=self._settings.run, kind="movie", extension=extension)
            for extension in ("mp4", "json")
        }
        try:
            facts = await asyncio.to_thread(self._products.get, keys["json"])
            return MovieView(url=f"/products/{keys['mp4']}", **json.loads(facts))
        except NotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise StoreError(f"the movie of {day_obs} cannot be described: {error}") from error

    async def exposure(self, exposure_id: int) -> ExposureView:
        """Return one exposure.

        Raises
        ------
        NotFoundError
            Raised if neither the board nor the results store knows it.
        """
        live = self._reader.night
        if exposure_id in live.tracks:
            view = live.view(exposure_id)
            if view.detectors and all(c.metrics for c in view.detectors if c.state is DetectorState.FINISHED):
                return view
        camera, run = self.camera.name, self._settings.run
        versions = await self._reader.ask_results(lambda: self._results.summary_versions(camera, exposure_id))
        results = await self._reader.ask_results(lambda: self._results.results(exposure_id, camera=camera, run=run))
        night = LiveNight(self._reader.names, day_obs=day_obs_of(exposure_id), camera=self._reader.camera)
        for summary in versions:
            if summary.run == run:
                night.put_summary(summary)
        for result in results:
            night.put_detector(
                exposure_id,
                result.pipeline,
                result.detector,
                DetectorState.FINISHED,
                metrics=result.metrics,
                at=result.finished_at,
            )
        if exposure_id in night.tracks:
            for batch in night.tracks[exposure_id].batches.values():
                first = next((r for r in results if r.pipeline == batch.pipeline), None)
                batch.image_type = batch.image_type if first is None else first.image_type
            return night.view(exposure_id)
        if exposure_id in live.tracks:
            return live.view(exposure_id)
        raise NotFoundError("exposure", exposure_id)

    async def versions(self, exposure_id: int) -> list[ExposureSummary]:
        """Return every version of every summary of an exposure, newest first."""
        found = await self._reader.ask_results(lambda: self._results.summary_versions(self.camera.name, exposure_id))
        return [summary for summary in found if summary.run == self._settings.run]

    async def timeline(self, exposure_id: int) -> Timeline:
        """Return the way of an exposure through the system; raises `NotFoundError`."""
        view = await self.exposure(exposure_id)
        camera, run = self.camera.name, self._settings.run
        results = await self._reader.ask_results(lambda: self._results.results(exposure_id, camera=camera, run=run))
        is_live = exposure_id in self._reader.night.tracks
        board = self._reader.board
        try:
            sent = await self._reader.ask_board(board.connection.run(get_sent(board.prefix, view.row.day_obs)))
        except StoreError:
            sent = []  # the rest of it is in the results store
        return make_timeline(
            exposure_id,
            [result for result in results if not result.pipeline.startswith("build_")],
            [one for one in await self.versions(exposure_id) if not one.pipeline.startswith("build_")],
            info=view.info,
            # A night read from the store was first seen when its summary was made, which tells nothing of the queue.
            posted=view.row.first_seen if is_live and view.row.first_seen != view.row.updated else None,
            sent=sent,
        )

    async def detector(self, exposure_id: int, detector: int) -> DetectorView:
        """Return one detector of an exposure, with the failures of its jobs; raises `NotFoundError`."""
        view = await self.exposure(exposure_id)
        cell = next((cell for cell in view.detectors if cell.detector == detector), None)
        if cell is None:
            raise NotFoundError("detector of this exposure", detector)
        camera, run = self.camera.name, self._settings.run
        results = await self._reader.ask_results(
            lambda: self._results.results(exposure_id, camera=camera, run=run, detector=detector)
        )
        failures = [f for f in await self.failures(exposure_id) if f.detector == detector]
        return DetectorView(
            exposure_id=exposure_id,
            detector=detector,
            name=cell.name,
            state=cell.state,
            reason=cell.reason,
            results=results,
            failures=failures,
        )

    async def quarantine(self) -> list[QuarantineRecord]:
        """Return quarantined raws, newest first."""
        return await self._reader.ask_results(lambda: self._results.quarantined(self.camera.name))

    async def failures(self, exposure_id: int | None = None) -> list[FailureView]:
        """Return failed jobs, newest first: the store's, and the board's dead letters that it has not yet."""
        stored = await self._reader.ask_results(lambda: self._results.failures(self.camera.name, exposure=exposure_id))
        found = [_stored_failure(row) for row in stored]
        known = {failure.job_id for failure in found}
        try:
            letters = await self._reader.ask_board(self._reader.board.dead_letters(200))
        except StoreError:
            return found  # the store alone still answers; the page says that the board is away
        newer = [letter for letter in letters if letter.job_id not in known]
        return found + [
            _failure(letter.job_id, letter.error, letter.attempts, letter.batch, letter.detector)
            for letter in newer
            if exposure_id in {None, letter.batch.exposure_id}
        ]

    async def status(self, *, viewers: int) -> StatusView:
        """Return the board's report of itself; raises `StoreError` if it does not answer."""
        status = await self._reader.ask_board(self._reader.board.status())
        document = status.model_dump(mode="json")
        return StatusView(
            server_time=datetime.now(UTC),
            workers=document.pop("workers"),
            board=document,
            sources=self._reader.sources,
            viewers=viewers,
        )

    async def _past_rows(self, day_obs: int) -> list[ExposureRow]:
        camera, run = self.camera.name, self._settings.run
        complete = await self._reader.ask_results(
            lambda: self._results.complete_batches(camera, day_obs=day_obs, run=run)
        )
        kept = self._past.get(day_obs)
        if kept is not None and kept[0] == len(complete):
            return kept[1]
        summaries = await self._reader.summaries_of(day_obs)

        def add_up() -> list[ExposureRow]:
            night = LiveNight(self._reader.names, day_obs=day_obs, camera=self._reader.camera)
            for summary in summaries:
                night.put_summary(summary)
            return night.rows()

        rows = await asyncio.to_thread(add_up)  # a fraction of a second, in which nobody else should wait
        while len(self._past) >= N_NIGHTS_KEPT:
            self._past.pop(next(iter(self._past)))
        self._past[day_obs] = (len(complete), rows)
        return rows


def _stored_failure(row: dict[str, Any]) -> FailureView:
    failed_at = row["failed_at"]
    if failed_at is not None and failed_at.tzinfo is None:
        failed_at = failed_at.replace(tzinfo=UTC)
    document = row["document"] or {}
    return FailureView(
        job_id=row["job_id"],
        exposure_id=row["exposure"],
        detector=row["detector"],
        pipeline=row["pipeline"],
        code=row["code"],
        message=row["message"],
        traceback=document.get("traceback"),
        attempts=row["attempts"],
        failed_at=failed_at,
    )


def _failure(job_id: str, error: dict[str, Any], attempts: int, batch: BatchKey, detector: int | None) -> FailureView:
    return FailureView(
        job_id=job_id,
        exposure_id=batch.exposure_id,
        detector=detector,
        pipeline=batch.pipeline,
        code=str(error.get("code", "")),
        message=str(error.get("message", "")),
        traceback=error.get("traceback"),
        attempts=attempts,
    )


def camera_view(camera: Camera, settings: DisplaySettings) -> CameraView:
    """Return a camera as pages draw it."""
    places = []
    for detector in camera.detectors:
        width_mm, height_mm = detector.focal_plane_size_mm
        places.append(
            DetectorPlace(
                id=detector.id,
                name=detector.name,
                raft=detector.raft,
                slot=detector.slot,
                purpose=detector.purpose.value,
                physical_type=detector.physical_type,
                x_mm=detector.x_mm,
                y_mm=detector.y_mm,
                width_mm=width_mm,
                height_mm=height_mm,
            )
        )
    return CameraView(
        name=camera.name,
        witness_detector=camera.witness_detector,
        filters=list(camera.filters),
        detectors=places,
        quantities=list(QUANTITIES),
        tiles=tiles_with(settings.tolerances),
    )
