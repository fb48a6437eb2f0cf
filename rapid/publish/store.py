"""How publishing stands, on the board: a key that displays read, gone soon after the role is; and how far sinks have come."""

import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import ValidationError

from rapid.dispatch.commands import Command, Talk
from rapid.publish.status import PublishStatus

KEY = "publish_status"
MARKS = "publish_marks"

EXPIRE_S = 60
"""Written at least every ten seconds: a minute of silence means that nobody publishes."""


def put_status(prefix: str, status: PublishStatus) -> Talk[None]:
    """Write the status."""
    yield Command(("SET", f"{prefix}{KEY}", status.model_dump_json(), "EX", EXPIRE_S))


def get_status(prefix: str) -> Talk[PublishStatus | None]:
    """Read the status; None if nobody publishes, or one that a newer version wrote and this one cannot read."""
    found = yield Command(("GET", f"{prefix}{KEY}"))
    if found is None:
        return None
    try:
        return PublishStatus.model_validate(json.loads(found))
    except (ValidationError, ValueError):
        return None


def put_marks(prefix: str, marks: Mapping[str, datetime]) -> Talk[None]:
    """Note up to when sinks have had everything, by their names."""
    yield Command(
        ("HSET", f"{prefix}{MARKS}", *(part for name, at in marks.items() for part in (name, at.isoformat())))
    )


def get_marks(prefix: str) -> Talk[dict[str, datetime]]:
    """Read the marks; one that makes no sense is left out: its sink is then told everything again."""
    found = yield Command(("HGETALL", f"{prefix}{MARKS}"))
    marks = {}
    for name, text in zip(found[::2], found[1::2], strict=True):
        try:
            at = datetime.fromisoformat(text.decode())
        except ValueError:
            continue
        if at.tzinfo is not None:
            marks[name.decode()] = at
    return marks
