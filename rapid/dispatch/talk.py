"""Conversations with a Redis server: said as generators, so that whoever sends them is somebody else.

A conversation yields the commands to send, is given the replies, and returns what it ends in. `rapid.dispatch.connection`
drives the same one over a blocking and over an asyncio connection; the board, requests, control and announced visits
are all written so.
"""

import json
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

SLICE_S = 20.0
"""Longest single blocking command: a server that hangs is noticed after this plus the socket timeout."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command to send; ``block_s`` is how long the server may take to answer."""

    args: tuple[Any, ...]
    block_s: float = 0.0


Talk = Generator[Command, Any, T]
"""A conversation with the board that ends in a ``T``."""


def to_json(value: Any) -> str:
    """Return compact JSON. NaN and infinities become null: nothing at the border is not a number."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), separators=(",", ":"), allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
