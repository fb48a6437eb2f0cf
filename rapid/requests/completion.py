"""Decide whether the exposures of a request are all there, and say what is not: pure.

Completion is of a set, never of a counter (I4): of a group the set of its CURINDEX, of a list its ids, of an exposure the
detectors that it read out. An exposure that is taken again under the same index fills no other one's place.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

TOLD = 8
"""Names that a sentence holds; the answer has them all."""

MAX_LISTED = 1000


class OnMissing(StrEnum):
    """What becomes of a request whose exposures have not all come in time."""

    ANSWER = "answer"
    """It ends, and its answer says what is missing."""

    PROCESS = "process"
    """What is there is processed; the answer says what is missing."""


class Lacking(BaseModel):
    """What of a request's exposures is not there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exposures: tuple[int, ...] = Field(default=(), description="Ids of exposures that did not come; the first 1000.")
    indices: tuple[int, ...] = Field(default=(), description="CURINDEX of exposures of the group that did not come.")
    n_exposures: int | None = Field(
        default=0, description="How many did not come; None if nobody said how many there would be."
    )
    raws: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="By exposure that is there: detectors that were read out and have no raw."
    )

    @property
    def is_nothing(self) -> bool:
        """Whether all is there."""
        return self.n_exposures == 0 and not self.raws

    def in_words(self) -> str:
        """Return it as a phrase for a person; empty if nothing is lacking."""
        parts = []
        if self.n_exposures is None:
            parts.append("exposures, nobody said how many")
        elif self.n_exposures:
            named = _listed(self.exposures) if self.exposures else ""
            if self.indices:
                named = f"CURINDEX {_listed(self.indices)}"
            noun = "exposure" if self.n_exposures == 1 else "exposures"
            parts.append(f"{self.n_exposures} {noun}{f' ({named})' if named else ''}")
        parts += [
            f"{len(names)} raw{'s' if len(names) > 1 else ''} of {exposure_id} ({_listed(names)})"
            for exposure_id, names in list(self.raws.items())[:3]
        ]
        if len(self.raws) > 3:
            parts.append(f"raws of {len(self.raws) - 3} more exposures")
        return ", ".join(parts)


def _listed(names: Iterable[object]) -> str:
    texts = [str(name) for name in names]
    more = f" and {len(texts) - TOLD} more" if len(texts) > TOLD else ""
    return ", ".join(texts[:TOLD]) + more


def missing_indices(indices: Iterable[int | None], size: int) -> tuple[int, ...]:
    """Return which of the places 1 to ``size`` of a group nobody has taken.

    Examples
    --------
    >>> missing_indices([1, 3, 3, None], 4)
    (2, 4)
    """
    taken = set(indices)
    return tuple(place for place in range(1, size + 1) if place not in taken)


def missing_raws(
    wanted: Collection[str], *, read_out: Collection[str] | None, there: Collection[str], are_named: bool
) -> tuple[str, ...]:
    """Return the detectors whose raw is still to come.

    Parameters
    ----------
    wanted
        Detectors that the request wants.
    read_out
        Detectors that the camera said it read out; None if it said nothing.
    there
        Detectors whose raw has come, or came and cannot be read: of these nothing more is to be expected.
    are_named
        Whether the request names its detectors: then they are waited for, whatever the camera says nothing about.
    """
    if read_out is not None:
        expected = set(wanted) & set(read_out)
    elif are_named:
        expected = set(wanted)
    else:
        return ()  # an unknown set cannot be waited for; any raw stands for its exposure
    return tuple(sorted(expected - set(there)))


def lacking_of(
    *,
    n_there: int,
    n_wanted: int | None,
    missing: Collection[int],
    indices: Collection[int],
    raws: Mapping[int, tuple[str, ...]],
) -> Lacking:
    """Return what is lacking, of what is known of the members of a request."""
    return Lacking(
        exposures=tuple(missing)[:MAX_LISTED],
        indices=tuple(indices)[:MAX_LISTED],
        n_exposures=None if n_wanted is None else max(n_wanted - n_there, 0),
        raws={str(exposure_id): names for exposure_id, names in sorted(raws.items()) if names},
    )
