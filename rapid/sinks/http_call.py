"""One HTTP call of a sink, for a bounded time, and what its answer means for what was sent."""

import json
from dataclasses import dataclass
from typing import Any

import urllib3

CONNECT_S = 5.0
READ_S = 30.0
MAX_WAIT_S = 600.0
"""A server may ask for so long a pause and no longer: by then it has forgotten, too."""

MAX_TOLD = 300

LATER = frozenset({401, 403, 404, 408, 425, 429})
"""Besides 5xx: a person or time can mend these. A token that has run out and a database that is not there yet are no fault of
the numbers, which would be lost if they were set aside for it."""


@dataclass(frozen=True)
class Answer:
    """What a server said; status 0 if it said nothing."""

    status: int
    text: str = ""
    wait_s: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether all was taken."""
        return 200 <= self.status < 300

    @property
    def is_for_later(self) -> bool:
        """Whether the same may be taken later."""
        return self.status == 0 or self.status >= 500 or self.status in LATER

    @property
    def why(self) -> str:
        """Status and beginning of the text, in one line."""
        said = " ".join(self.text.split())[:MAX_TOLD]
        return f"{self.status}: {said}" if self.status else said

    def json(self) -> Any:
        """Return the document, None if it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Caller:
    """Posts to one server, over connections that stay open."""

    def __init__(self, *, connect_s: float = CONNECT_S, read_s: float = READ_S) -> None:
        timeout = urllib3.Timeout(connect=connect_s, read=read_s)
        self._http = urllib3.PoolManager(maxsize=2, timeout=timeout, retries=False)

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Post once; a server that is away is an answer, too."""
        try:
            response = self._http.request("POST", url, body=body, headers=headers, redirect=False)
            text = response.data.decode(errors="replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Answer(0, f"{type(error).__name__}: {error}")
        return Answer(response.status, text, _wait_of(response.headers.get("Retry-After")))


def _wait_of(text: str | None) -> float | None:
    try:
        return min(max(float(text), 0.0), MAX_WAIT_S) if text else None
    except ValueError:
        return None  # a date: our own pause will do
