"""What can be wrong with a request."""

from typing import Any

from rapid.errors import RapidError, RefusedError
from rapid.requests.models import RequestFault


class BadRequestError(RapidError):
    """A request is not valid; ``field`` names where."""

    code = "bad_request"

    def __init__(self, field: str, reason: str, **facts: Any) -> None:
        super().__init__(f"{field}: {reason}" if field else reason, field=field, **facts)
        self.field = field


class UnknownExposureError(BadRequestError):
    """A request names an exposure that there is not, and will not be."""

    code = "unknown_exposure"


class QueueFullError(RefusedError):
    """There are as many requests as the installation takes at a time; later there may be room."""

    code = "queue_full"


def fault_of(error: RapidError) -> RequestFault:
    """Return an error as it stands in a record."""
    field = error.facts.get("field")
    return RequestFault(code=error.code, message=error.message[:1000], field=str(field)[:200] if field else None)
