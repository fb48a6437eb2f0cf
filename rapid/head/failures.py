"""Keep the failures in the results store equal to what the board has given up (I1).

A worker records the failure of a job that it saw fail for good. Nobody sees a job fail whose worker died, or fell silent,
once too often: the board gives it up by itself. The leading head compares the dead letters with the results store when it
begins to lead, and whenever a job has failed for good. Writing a failure twice is writing it once.
"""

import asyncio
import contextlib
from datetime import UTC, datetime

import structlog

from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import DeadLetter, Event, EventKind
from rapid.errors import RapidError, StoreError
from rapid.pause import pause
from rapid.results.store import ResultsStore

log = structlog.get_logger()

LETTERS_COMPARED = 5000
"""All that the board keeps."""

OUTAGE_PAUSE_S = 1.0
"""Before the next attempt to follow the events of a board that is away."""


class FailureKeeper:
    """Writes failures, as long as its head leads.

    Parameters
    ----------
    camera, board, results
        As for the head.
    """

    def __init__(self, camera: Camera, board: AsyncBoard, results: ResultsStore) -> None:
        self._camera = camera
        self._board = board
        self._results = results
        self._known: set[str] = set()
        self._revived: set[str] = set()

    async def run(self) -> None:
        """Record what has failed, now and whenever something fails; forget what was retried with success."""
        last = await self._board.last_event_id()
        failures = await asyncio.to_thread(lambda: self._results.failures(self._camera.name, limit=LETTERS_COMPARED))
        self._known = {str(row["job_id"]) for row in failures}
        await self._compare()
        while True:
            try:
                events = await self._board.events(last, timeout_s=30.0)
                if any(event.kind is EventKind.JOB_FAILED for event in events):
                    await self._compare()
                for event in events:
                    await self._forget(event)
            except StoreError as error:
                log.warning("failures cannot be followed", error=error.message)
                await pause(OUTAGE_PAUSE_S)
                continue
            last = events[-1].event_id if events else last

    async def _compare(self) -> None:
        for letter in await self._board.dead_letters(LETTERS_COMPARED):
            if letter.detector is None or letter.job_id in self._known:
                continue  # a gather: its exposure shows what is missing
            if await self._has_result(letter) and letter.job_id not in self._revived:
                # Its worker had stored the result, and could not say so any more. Once: a job that always
                # ends so has failed.
                self._revived.add(letter.job_id)
                with contextlib.suppress(RapidError):
                    await self._board.retry_dead_letter(letter.job_id)
                    log.info("job given up though its result is stored: tried again", job_id=letter.job_id)
                    continue
            await asyncio.to_thread(self._put, letter)
            self._known.add(letter.job_id)
            log.warning("job failed for good", job_id=letter.job_id, code=letter.error.get("code"))

    async def _has_result(self, letter: DeadLetter) -> bool:
        batch = letter.batch
        stored = await asyncio.to_thread(
            lambda: self._results.finished_detectors(self._camera.name, batch.exposure_id, run=batch.run)
        )
        return letter.detector in stored.get(batch.pipeline, frozenset())

    def _put(self, letter: DeadLetter) -> None:
        if letter.detector is None:
            return
        self._results.put_failure(
            job_id=letter.job_id,
            camera=self._camera.name,
            exposure=letter.batch.exposure_id,
            detector=letter.detector,
            pipeline=letter.batch.pipeline,
            attempts=letter.attempts,
            error={**letter.error, "raw_uri": letter.raw_uri},
            failed_at=datetime.fromtimestamp(letter.at_ms / 1000, UTC),
        )

    async def _forget(self, event: Event) -> None:
        if event.kind is not EventKind.JOB_FINISHED or event.batch_id is None or event.detector is None:
            return
        job_id = f"{event.batch_id}.{event.detector:03d}"
        if job_id in self._known:
            self._known.discard(job_id)
            await asyncio.to_thread(self._results.forget_failure, job_id)
