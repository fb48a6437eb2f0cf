"""The HTTP door of the ingest role: bucket notifications, alone or in batches as a Kafka REST proxy hands them on.

An answer of 200 means that every file it counts as taken is safe: on our list in Redis, or in a bucket that is listed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import APIRouter, HTTPException, Request
from pydantic import ValidationError

from rapid.arrival.bucket import BucketSource
from rapid.arrival.decide import FileKind, kind_of
from rapid.arrival.notification import MAX_BODY_BYTES, NotificationReceipt, ObjectCreated, parse_notification
from rapid.camera.models import Camera
from rapid.dispatch.board import AsyncBoard
from rapid.errors import StoreError
from rapid.ingest import store
from rapid.ingest.files import FileRule, find_rule
from rapid.ingest.models import KafkaRecord
from rapid.products.s3 import S3Location

log = structlog.get_logger()

MAX_RECORDS_BYTES = 4 * MAX_BODY_BYTES


@dataclass(frozen=True)
class DoorSettings:
    """What may come in.

    Attributes
    ----------
    buckets
        Buckets whose objects may be told of, beside the source's own.
    endpoint_url
        Server of those buckets; the environment's if None.
    secret
        What ``opaqueData`` must say.
    """

    buckets: frozenset[str] = frozenset()
    endpoint_url: str | None = None
    rules: tuple[FileRule, ...] = ()
    secret: str | None = None


class IngestDoor:
    """Takes in what is told over HTTP.

    Parameters
    ----------
    source
        The bucket that is watched, if one is: its own notifications only wake it, as it is listed anyway.
    """

    def __init__(
        self, camera: Camera, board: AsyncBoard, settings: DoorSettings, *, source: BucketSource | None = None
    ) -> None:
        self._camera = camera
        self._board = board
        self._settings = settings
        self._source = source

    async def take(self, body: bytes) -> NotificationReceipt:
        """Take in one notification.

        Raises
        ------
        StoreError
            Raised if Redis does not answer: the sender should try again.
        """
        created, receipt = parse_notification(body, secret=self._settings.secret)
        uris = []
        n_woken = 0
        for one in created:
            if self._is_watched(one):
                n_woken += 1
            elif (uri := self._uri(one)) is not None:
                uris.append(uri)
        if n_woken and self._source is not None:
            self._source.notify(body)
        await self._board.connection.run(store.tell_files(self._board.prefix, uris))
        n_foreign = len(created) - n_woken - len(uris)
        return NotificationReceipt(
            receipt.n_taken - n_foreign, receipt.n_ignored + n_foreign, receipt.n_bad, receipt.n_refused
        )

    def _is_watched(self, created: ObjectCreated) -> bool:
        source = self._source
        if source is None or created.bucket != source.place.bucket or self._has_rule(created.key):
            return False
        prefix = f"{source.place.path}/" if source.place.path else ""
        return created.key.startswith(prefix) and kind_of(created.key, self._camera) is not FileKind.OTHER

    def _has_rule(self, key: str) -> bool:
        return find_rule(key, self._settings.rules, self._camera.name) is not None

    def _uri(self, created: ObjectCreated) -> str | None:
        """Return the URI of an object that is ours to ingest; None if it is not."""
        own = self._source.place.bucket if self._source is not None else None
        if created.bucket not in self._settings.buckets and created.bucket != own:
            return None
        is_raw = kind_of(created.key, self._camera) is FileKind.RAW
        if "\n" in created.key or not (is_raw or self._has_rule(created.key)):
            return None
        endpoint = self._source.place.endpoint_url if self._source is not None else self._settings.endpoint_url
        return S3Location(created.bucket, endpoint_url=endpoint).uri(created.key)

    async def take_batch(self, body: bytes) -> NotificationReceipt:
        """Take in a batch of Kafka records whose values are notifications; a bad one counts and stops no other.

        Raises
        ------
        StoreError
            Raised as by `take`.
        ValueError
            Raised if the body is no batch.
        """
        total = NotificationReceipt()
        for record in _records_of(body):
            try:
                value = KafkaRecord.model_validate(record).value
            except ValidationError:
                total = _sum((total, NotificationReceipt(n_bad=1)))
                continue
            if not isinstance(value, dict | str):
                total = _sum((total, NotificationReceipt(n_bad=1)))
                continue
            text = value if isinstance(value, str) else json.dumps(value)
            total = _sum((total, await self.take(text.encode())))
        return total


def _records_of(body: bytes) -> list[Any]:
    """Return the records of a batch: a list, or an object with ``records``."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is no JSON") from error
    records = document.get("records") if isinstance(document, dict) else document
    if not isinstance(records, list):
        raise ValueError("the body must be a list of records, or an object with records")
    return records


def _sum(receipts: Sequence[NotificationReceipt]) -> NotificationReceipt:
    return NotificationReceipt(
        sum(one.n_taken for one in receipts),
        sum(one.n_ignored for one in receipts),
        sum(one.n_bad for one in receipts),
        sum(one.n_refused for one in receipts),
    )


def ingest_router(door: IngestDoor) -> APIRouter:
    """Return the routes ``POST /notify`` (one notification) and ``POST /records`` (a batch)."""
    router = APIRouter()

    @router.post("/notify")
    async def notify(request: Request) -> dict[str, int]:
        """Take in an S3 event notification."""
        return await _answer(door.take, await _body_of(request, MAX_BODY_BYTES))

    @router.post("/records")
    async def records(request: Request) -> dict[str, int]:
        """Take in a batch of records whose values are notifications."""
        return await _answer(door.take_batch, await _body_of(request, MAX_RECORDS_BYTES))

    return router


async def _answer(take: Any, body: bytes) -> dict[str, int]:
    try:
        receipt: NotificationReceipt = await take(body)
    except StoreError as error:
        raise HTTPException(503, error.message, headers={"Retry-After": "5"}) from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    if receipt.n_bad or receipt.n_refused:
        log.warning("bad notification records", n_bad=receipt.n_bad, n_refused=receipt.n_refused)
    if receipt.n_refused and not receipt.n_taken:
        raise HTTPException(403, "opaqueData is not the agreed secret")
    return {"taken": receipt.n_taken, "ignored": receipt.n_ignored, "bad": receipt.n_bad}


async def _body_of(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise HTTPException(413, f"at most {limit} bytes")
    return bytes(body)
