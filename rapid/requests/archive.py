"""Requests in the results store: what Redis may lose, and the head puts back (I1, I2)."""

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from rapid.errors import StoreError
from rapid.requests.models import RequestRecord
from rapid.results import schema
from rapid.results.sql import SqlStore, finite

KEEP_MS = 400 * 86_400_000
"""A little more than a year: what was asked for last season can still be looked up."""


class RequestArchive(SqlStore):
    """The accepted requests of all cameras. Methods block; an asyncio role calls them through `asyncio.to_thread`."""

    def put(self, record: RequestRecord) -> None:
        """Write a record; the newest of a request stands."""
        row = {
            "camera": record.camera,
            "request_id": record.request_id,
            "client_key": record.spec.client_key if record.spec else None,
            "run": record.run,
            "state": record.state.value,
            "is_open": not record.state.is_final,
            "created_ms": record.created_ms,
            "document": finite(record.model_dump(mode="json")),
        }
        self._upsert(schema.request, [row], ("camera", "request_id"))

    def get(self, camera: str, request_id: str) -> RequestRecord | None:
        """Return a record, or None."""
        t = schema.request.c
        found = self._records(t.camera == camera, t.request_id == request_id)
        return found[0] if found else None

    def open_records(self, camera: str) -> list[RequestRecord]:
        """Return the requests that have not ended, oldest first."""
        t = schema.request.c
        return self._records(t.camera == camera, t.is_open)[::-1]

    def by_client_key(self, camera: str, client_key: str, *, since_ms: int) -> RequestRecord | None:
        """Return the newest request with a client key posted since a time, or None."""
        t = schema.request.c
        found = self._records(t.camera == camera, t.client_key == client_key, t.created_ms >= since_ms, limit=1)
        return found[0] if found else None

    def by_run(self, camera: str, run: str) -> RequestRecord | None:
        """Return a request whose results are stored under a run's name, or None."""
        t = schema.request.c
        found = self._records(t.camera == camera, t.run == run, limit=1)
        return found[0] if found else None

    def recent(self, camera: str, limit: int) -> list[RequestRecord]:
        """Return requests, newest first."""
        return self._records(schema.request.c.camera == camera, limit=limit)

    def campaigns(self, camera: str, limit: int) -> list[RequestRecord]:
        """Return the requests that select a campaign, newest first."""
        t = schema.request.c
        return self._records(
            t.camera == camera, t.document[("spec", "select", "campaign")].as_string().is_not(None), limit=limit
        )

    def forget_before(self, camera: str, created_ms: int) -> int:
        """Remove requests that ended and were posted before a time; how many."""
        t = schema.request
        try:
            with self._begin() as connection:
                done = connection.execute(
                    t.delete().where(t.c.camera == camera, ~t.c.is_open, t.c.created_ms < created_ms)
                )
                return int(done.rowcount)
        except SQLAlchemyError as error:
            raise StoreError(f"results store: {error}") from error

    def _records(self, *conditions: Any, limit: int = 10_000) -> list[RequestRecord]:
        t = schema.request.c
        statement = sa.select(t.document).where(*conditions).order_by(t.created_ms.desc(), t.id.desc()).limit(limit)
        # Strictly typed documents: read as JSON text, as everything else that goes over a border.
        return [RequestRecord.model_validate_json(json.dumps(row.document)) for row in self._fetch(statement)]
