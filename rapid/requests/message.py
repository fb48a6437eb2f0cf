"""What the parts of a request have in common."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

LARGEST_ID = 9999_12_31_99999
"""Of an exposure: simulated ones carry a thousand years and more in their day, none has five digits."""

ExposureId = Annotated[int, Field(gt=0, le=LARGEST_ID)]


class Message(BaseModel):
    """A part of a request or of its record; what it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_range(value: Any) -> Any:
    """Read ``first-last`` and ``first..last`` as a range, digits as a number; leave anything else.

    Examples
    --------
    >>> read_range("2026112000012-2026112000020")
    {'first': 2026112000012, 'last': 2026112000020}
    >>> read_range("12"), read_range("newest")
    (12, 'newest')
    """
    if isinstance(value, str):
        text = value.replace("..", "-").replace(" ", "")
        first, dash, last = text.partition("-")
        if dash and first.isdecimal() and last.isdecimal() and len(text) < 40:
            return {"first": int(first), "last": int(last)}
        if first.isdecimal() and not dash and len(text) < 20:
            return int(first)
    return value
