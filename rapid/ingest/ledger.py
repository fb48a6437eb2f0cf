"""What became of files: told to everybody, noted if set aside, taken off the lists, counted.

In this order, so that a process that is killed in between does a step twice rather than never.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import structlog

from rapid.arrival.models import RawQuarantined
from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.errors import StoreError
from rapid.ingest import store
from rapid.ingest.desk import Outcome
from rapid.ingest.metrics import IngestMetrics
from rapid.ingest.models import Fate, IngestedMessage, Item, SetAsideRecord

log = structlog.get_logger()

IN = frozenset({Fate.INGESTED, Fate.ALREADY, Fate.REPLACED})


class Ledger:
    """Keeps the accounts of one ingest process.

    Parameters
    ----------
    run
        RUN collection that raws are in.
    """

    def __init__(self, camera: Camera, board: AsyncBoard, *, run: str, metrics: IngestMetrics) -> None:
        self._camera = camera
        self._board = board
        self._prefix = board.prefix
        self._run = run
        self._metrics = metrics
        self._aside: set[str] = set()
        self.counts: Counter[str] = Counter()

    async def prepare(self) -> None:
        """Read what is set aside already."""
        records = await self._board.connection.run(store.get_set_aside(self._prefix))
        self._aside = {record.uri for record in records}

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Item]:
        """Settle files that have come to an end; return those for which the board did not answer: they come again."""
        left: list[Item] = []
        told: dict[tuple[int, str], list[Outcome]] = defaultdict(list)
        single: list[Outcome] = []
        for outcome in outcomes:
            header = outcome.item.header
            if outcome.fate in IN and header is not None:
                kind = "guider_raw" if header.info.is_guider else "raw"
                told[header.info.exposure_id, kind].append(outcome)
            else:
                single.append(outcome)
        for (exposure_id, kind), some in told.items():
            try:
                await self._tell(exposure_id, kind, some)
                for outcome in some:
                    await self._end(outcome)
            except StoreError as error:
                log.warning("the board does not take what is ingested, will try again", error=error.message)
                left += [outcome.item for outcome in some]
        for outcome in single:
            try:
                await self._end(outcome)
            except StoreError as error:
                log.warning("the board does not answer, will try again", error=error.message)
                left.append(outcome.item)
        return left

    async def _tell(self, exposure_id: int, kind: str, outcomes: Iterable[Outcome]) -> None:
        news = {self._detector(one) for one in outcomes if one.fate is not Fate.ALREADY}
        before = {self._detector(one) for one in outcomes if one.fate is Fate.ALREADY} - news
        if before:
            # Ingested by a process that was killed before it said so, or by somebody else.
            news |= before - await self._board.connection.run(store.get_told(self._prefix, exposure_id, kind))
        if not news:
            return
        message = IngestedMessage(
            camera=self._camera.name,
            exposure_id=exposure_id,
            detectors=tuple(sorted(news)),
            dataset_type=kind,
            run=self._run,
        )
        await self._board.connection.run(store.tell_ingested(self._prefix, message))

    @staticmethod
    def _detector(outcome: Outcome) -> int:
        assert outcome.item.header is not None  # noqa: S101 - only raws are told of
        return outcome.item.header.info.detector

    async def _end(self, outcome: Outcome) -> None:
        """Note what became of a file, and let go of it."""
        item = outcome.item
        fate = outcome.fate or Fate.SET_ASIDE
        if fate is Fate.SET_ASIDE:
            info = item.header.info if item.header is not None else None
            record = SetAsideRecord(
                uri=item.uri,
                code=outcome.code,
                reason=outcome.reason,
                attempts=item.attempts,
                exposure_id=info.exposure_id if info is not None else None,
                detector=info.detector if info is not None else None,
                at=datetime.now(UTC),
            )
            await self._note_aside(record)
        elif item.uri in self._aside:
            await self._board.connection.run(store.release(self._prefix, [item.uri]))
            self._aside.discard(item.uri)
        for receipt in item.receipts:
            await self._board.connection.run(store.let_go(receipt.taken_list, receipt.entry))
        self.counts[fate.value] += 1
        self._metrics.files.labels(fate=fate.value).inc()
        if fate in IN:
            self._metrics.seconds.observe(time.monotonic() - item.since_s)

    async def quarantine(self, raw: RawQuarantined) -> None:
        """Set a raw aside that its source cannot read."""
        detector = self._camera.by_name.get(raw.detector_name or "")
        record = SetAsideRecord(
            uri=raw.uri,
            code=raw.code,
            reason=raw.reason,
            exposure_id=raw.exposure_id,
            detector=detector.id if detector is not None else None,
            at=raw.quarantined_at,
        )
        await self.refuse(record)

    async def refuse(self, record: SetAsideRecord) -> None:
        """Set aside what no file was made of."""
        await self._note_aside(record)
        self.counts[Fate.SET_ASIDE.value] += 1
        self._metrics.files.labels(fate=Fate.SET_ASIDE.value).inc()

    async def _note_aside(self, record: SetAsideRecord) -> None:
        log.error("file set aside", uri=record.uri, code=record.code, reason=record.reason)
        await self._board.connection.run(store.set_aside(self._prefix, record))
        self._aside.add(record.uri)
