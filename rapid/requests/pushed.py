"""The lists that today's observing scripts push to, by way of OCPS:101: nothing but a key and ``id,id,...``.

Scripts of ts_standardscripts push ``{instrument}-FROM-OCS_FOCUSSWEEP`` (BaseFocusSweep) and
``{instrument}-FROM-OCS_DONUTPAIR`` (BaseTakeAOSSequence), and ignore what comes of it. Each push becomes a request; the
answer is there for whoever looks.

Two lists are for scripts to come: ``{instrument}-FROM-OCS_GROUP``, a GROUPID, and ``{instrument}-FROM-OCS_EXPOSURES``, ids: these
are processed when all of them are there. Either takes a whole request as JSON instead, for other wishes.
"""

from dataclasses import dataclass
from typing import Any

from rapid.requests.faults import BadRequestError
from rapid.requests.models import Combine, RequestSpec
from rapid.requests.reading import read_json, read_spec
from rapid.requests.selection import MAX_EXPOSURES

MAX_VALUE = 20_000
"""Characters of a pushed value: a thousand ids."""

PUSHED_DEADLINE_S = 1800.0
"""Nobody waits for these; the exposures have been taken."""


@dataclass(frozen=True)
class PushedList:
    """One list of an instrument."""

    kind: str
    combine: Combine | None = None

    def key(self, instrument: str) -> str:
        """Return the list's key in Redis."""
        return f"{instrument}-FROM-OCS_{self.kind}"


PUSHED = (
    PushedList("FOCUSSWEEP", Combine.FOCUS_SWEEP),
    PushedList("DONUTPAIR", Combine.DONUT_PAIR),
    PushedList("GROUP"),
    PushedList("EXPOSURES"),
)


def read_pushed(kind: str, value: bytes) -> RequestSpec:
    """Return the request that a pushed value is.

    Raises
    ------
    BadRequestError
        Raised for anything but comma-separated exposure ids; or a GROUPID, or a request as JSON, where a list takes them.

    Examples
    --------
    >>> read_pushed("DONUTPAIR", b"2025111500227,2025111500228").combine.value
    'donut_pair'
    """
    known = next((one for one in PUSHED if one.kind == kind), None)
    if known is None:
        raise BadRequestError("kind", f"no list {kind[:40]!r} is known")
    if len(value) > MAX_VALUE:
        raise BadRequestError("value", f"is longer than {MAX_VALUE} characters")
    text = value.decode(errors="replace").strip()
    wishes: dict[str, Any] = {"deadline_s": PUSHED_DEADLINE_S, "label": f"{kind} from the OCS"}
    if known.combine is not None:
        return read_spec({**wishes, "select": {"exposures": _ids(text)}, "combine": known.combine.value})
    if text.startswith("{"):
        document = read_json(text)
        return read_spec({"when_whole": True, **wishes, **document} if isinstance(document, dict) else document)
    if kind == "GROUP":
        if not text:
            raise BadRequestError("value", "is empty: a GROUPID is wanted")
        return read_spec({**wishes, "select": {"group": {"group_id": text}}, "when_whole": True})
    return read_spec({**wishes, "select": {"exposures": _ids(text)}, "when_whole": True})


def _ids(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_EXPOSURES:
        raise BadRequestError("value", f"{len(parts)} exposures are too many; {MAX_EXPOSURES} at most")
    for place, part in enumerate(parts):
        if not (part.isascii() and part.isdigit()):
            raise BadRequestError(f"value.{place}", f"{part[:40]!r} is no exposure id")
    return parts
