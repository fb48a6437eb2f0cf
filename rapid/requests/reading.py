"""Read a request from what somebody sent: JSON of any quality.

Whatever comes in, what goes out is a valid `RequestSpec` or a `BadRequestError` that names the field.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rapid.requests.faults import BadRequestError
from rapid.requests.models import RequestSpec

MAX_BYTES = 256 * 1024
"""A thousand exposure ids and every setting of every payload are a tenth of this."""

MAX_VALUE = 60
"""Characters of a wrong value that are repeated in a message."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def read_json(text: str | bytes, *, what: str = "request") -> Any:
    """Read a JSON document.

    Raises
    ------
    BadRequestError
        Raised for a text that is too long, not UTF-8, not JSON, or nested without end.
    """
    if len(text) > MAX_BYTES:
        raise BadRequestError(what, f"is larger than {MAX_BYTES} bytes")
    try:
        document = json.loads(text, parse_constant=_no_constant)
        # Half of a surrogate pair is JSON, but no text that could be stored or sent on.
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(what, "holds text that is no Unicode") from error
    except UnicodeDecodeError as error:
        raise BadRequestError(what, f"is not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise BadRequestError(what, f"is not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from error
    except ValueError as error:
        raise BadRequestError(what, f"is not JSON: {str(error)[:MAX_VALUE]}") from error
    except RecursionError as error:
        raise BadRequestError(what, "is nested too deeply") from error
    return document


def read_spec(document: Any) -> RequestSpec:
    """Check a document against the schema.

    Raises
    ------
    BadRequestError
        Raised for the first field that is not valid.
    """
    if not isinstance(document, Mapping):
        raise BadRequestError("request", "must be a JSON object")
    try:
        return RequestSpec.model_validate(document)
    except ValidationError as error:
        raise _first_of(error) from error
    except RecursionError as error:
        raise BadRequestError("request", "is nested too deeply") from error


def read_request(text: str | bytes) -> RequestSpec:
    """Read a request from JSON text; raises as `read_json` and `read_spec`."""
    return read_spec(read_json(text))


def _first_of(error: ValidationError) -> BadRequestError:
    # Of a union every branch is told; the one that got farthest into the document is what was meant.
    found = max(error.errors(include_url=False), key=lambda one: len(_path(one["loc"])))
    path = _path(found["loc"])
    reason = found["msg"].removeprefix("Value error, ")
    value = found.get("input")
    # A check of several fields names the field itself: "run: prompt is ...".
    named, colon, rest = reason.partition(": ")
    if (
        found["type"] == "value_error"
        and colon
        and named.replace(".", "").replace("_", "").isalnum()
        and " " not in named
    ):
        path, reason = [*path, named], rest
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        reason += f", not {str(value)[:MAX_VALUE]!r}" if isinstance(value, str) else f", not {str(value)[:MAX_VALUE]}"
    return BadRequestError(".".join(path)[:200] or "request", reason)


def _path(loc: tuple[int | str, ...]) -> list[str]:
    """Return the way to a value, without the names of a union's branches."""
    return [str(part) for part in loc if not _is_branch(part)]


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (
        any(mark in part for mark in "[(-")
        or part in {"ExposureRange", "int", "str", "constrained-str", "function-before"}
    )
