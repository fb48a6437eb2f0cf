"""How publishing stands, on the board: one key that displays read, gone soon after the role is."""

import json

from pydantic import ValidationError

from rapid.dispatch.commands import Command, Talk
from rapid.publish.status import PublishStatus

KEY = "publish_status"

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
