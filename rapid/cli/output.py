"""How commands print."""

import json
import sys
from typing import Any


def print_json(document: Any) -> None:
    """Print one JSON document on a line of its own, or indented on a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(document, indent=indent, default=str, allow_nan=False))
