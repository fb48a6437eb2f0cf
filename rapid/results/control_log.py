"""Changes of the control state in SQL, all of them: what a flush of Redis is recovered from."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from rapid.results import schema
from rapid.results.sql import SqlStore, finite


class ControlChangeRecord(BaseModel):
    """One change, and the whole state it led to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str
    version: int
    changed_ms: int
    changed_by: str
    door: str
    reason: str = ""
    change: dict[str, Any] = Field(description="Two tables, before and after: fields by dotted path.")
    state: dict[str, Any] = Field(description="The whole state, as JSON.")


class ControlLog(SqlStore):
    """Changes of the control states of all cameras.

    Parameters
    ----------
    engine
        That of the results store: ``results.engine``.
    """

    def put(self, records: Sequence[ControlChangeRecord]) -> None:
        """Write changes; one that is there under the same camera and version is replaced.

        Raises
        ------
        StoreError
            Raised if the database does not answer.
        """
        rows = [finite(record.model_dump(mode="json")) for record in records]
        self._upsert(schema.control_change, rows, ("camera", "version"))

    def changes(self, camera: str, *, limit: int = 500) -> list[ControlChangeRecord]:
        """Return the newest changes of a camera's control state, newest first.

        Raises
        ------
        StoreError
            Raised if the database does not answer.
        """
        table = schema.control_change
        statement = sa.select(table).where(table.c.camera == camera).order_by(table.c.version.desc()).limit(limit)
        return [
            ControlChangeRecord.model_validate({name: value for name, value in row._mapping.items() if name != "id"})
            for row in self._fetch(statement)
        ]
