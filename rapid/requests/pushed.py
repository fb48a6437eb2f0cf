"""The lists that today's observing scripts push to, by way of OCPS:101: nothing but a key and ``id,id,...``.

Scripts of ts_standardscripts push ``{instrument}-FROM-OCS_FOCUSSWEEP`` (BaseFocusSweep) and
``{instrument}-FROM-OCS_DONUTPAIR`` (BaseTakeAOSSequence), and ignore what comes of it. Each push becomes a request; the
answer is there for whoever looks.
"""

from dataclasses import dataclass

from rapid.requests.faults import BadRequestError
from rapid.requests.models import MAX_EXPOSURES, Combine, RequestSpec
from rapid.requests.reading import read_spec

MAX_VALUE = 20_000
"""Characters of a pushed value: a thousand ids."""

PUSHED_DEADLINE_S = 1800.0
"""Nobody waits for these; the exposures have been taken."""


@dataclass(frozen=True)
class PushedList:
    """One list of an instrument."""

    kind: str
    combine: Combine

    def key(self, instrument: str) -> str:
        """Return the list's key in Redis."""
        return f"{instrument}-FROM-OCS_{self.kind}"


PUSHED = (PushedList("FOCUSSWEEP", Combine.FOCUS_SWEEP), PushedList("DONUTPAIR", Combine.DONUT_PAIR))


def read_pushed(kind: str, value: bytes) -> RequestSpec:
    """Return the request that a pushed value is.

    Raises
    ------
    BadRequestError
        Raised for anything but comma-separated exposure ids.

    Examples
    --------
    >>> read_pushed("DONUTPAIR", b"2025111500227,2025111500228").combine.value
    'donut_pair'
    """
    combine = next((known.combine for known in PUSHED if known.kind == kind), None)
    if combine is None:
        raise BadRequestError("kind", f"no list {kind[:40]!r} is known")
    if len(value) > MAX_VALUE:
        raise BadRequestError("value", f"is longer than {MAX_VALUE} characters")
    parts = [part.strip() for part in value.decode(errors="replace").split(",")]
    if len(parts) > MAX_EXPOSURES:
        raise BadRequestError("value", f"{len(parts)} exposures are too many; {MAX_EXPOSURES} at most")
    for place, part in enumerate(parts):
        if not (part.isascii() and part.isdigit()):
            raise BadRequestError(f"value.{place}", f"{part[:40]!r} is no exposure id")
    return read_spec(
        {
            "select": {"exposures": parts},
            "combine": combine.value,
            "deadline_s": PUSHED_DEADLINE_S,
            "label": f"{kind} from the OCS",
        }
    )
