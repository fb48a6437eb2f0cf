"""How a pattern moves from exposure to exposure, and which exposures no pattern thins out.

Pure. The caller asks once for each exposure and counts them.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from rapid.exposure.models import ExposureInfo


class VisitMode(StrEnum):
    """How the phase of the pattern moves from exposure to exposure.

    Values are read without regard to case, ``-`` or blanks for ``_``, and under the names other systems use
    (``ALTERNATING_IN_TWOS`` is RubinTV's).
    """

    CONSTANT = "constant"
    """Always phase 0."""

    ALTERNATING = "alternating"
    """The next phase with every exposure."""

    ALTERNATING_BY_TWOS = "alternating_by_twos"
    """The next phase with every second exposure, so that both exposures of a pair see the same detectors."""

    @classmethod
    def _missing_(cls, value: object) -> "VisitMode | None":
        if not isinstance(value, str):
            return None
        plain = "_".join(value.strip().lower().replace("-", "_").replace(" ", "_").split("_"))
        return cls(_ALIASES[plain]) if plain in _ALIASES else None


_ALIASES = {mode.value: mode.value for mode in VisitMode} | {
    "alternating_phase": "alternating",
    "alternating_in_twos": "alternating_by_twos",
    "alternating_twos": "alternating_by_twos",
    "by_twos": "alternating_by_twos",
    "in_twos": "alternating_by_twos",
}


def phase_of(mode: VisitMode, counter: int, n_phases: int = 2) -> int:
    """Return the phase of an exposure's pattern.

    Parameters
    ----------
    mode
        How the phase moves.
    counter
        How many exposures came before, from 0; the caller counts each exposure once.
    n_phases
        How many phases the pattern has, `Pattern.phases`.

    Raises
    ------
    ValueError
        Raised for a negative counter, or fewer phases than one.

    Examples
    --------
    >>> [phase_of(VisitMode.ALTERNATING, counter) for counter in range(5)]
    [0, 1, 0, 1, 0]
    >>> [phase_of(VisitMode.ALTERNATING_BY_TWOS, counter) for counter in range(5)]
    [0, 0, 1, 1, 0]
    """
    if counter < 0 or n_phases < 1:
        raise ValueError(f"counter {counter} must not be negative, nor n_phases {n_phases} below 1")
    match mode:
        case VisitMode.CONSTANT:
            return 0
        case VisitMode.ALTERNATING:
            return counter % n_phases
        case VisitMode.ALTERNATING_BY_TWOS:
            return counter // 2 % n_phases


class HeaderFlag(BaseModel):
    """The header card that guarantees an exposure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(default="RAPIDALL", pattern=r"^[A-Z0-9_-]{1,8}$", description="Header key.")
    value: str | None = Field(
        default=None, max_length=68, description="Value that guarantees, case ignored; left out: any that means yes."
    )

    def is_set(self, header: Mapping[str, object]) -> bool:
        """Whether a header has the card with the wanted value."""
        found = header.get(self.key)
        if self.value is None:
            return means_yes(found)
        return found is not None and _plain(found) == _plain(self.value)


_YES = {"t", "true", "y", "yes", "on", "1"}


def means_yes(value: object) -> bool:
    """Whether a header's value says yes: a FITS true, a number other than 0, or a word such as ``yes``.

    Examples
    --------
    >>> [means_yes(value) for value in (True, "T", 1, "no", 0, None, "")]
    [True, True, True, False, False, False, False]
    """
    if isinstance(value, bool | int | float):
        return bool(value) and value == value  # NaN says nothing
    return isinstance(value, str) and _plain(value) in _YES


def is_guaranteed(info: ExposureInfo, ids: Collection[int], header_flag: object = None) -> bool:
    """Whether an exposure is to be processed on every detector, whatever pattern and load.

    Parameters
    ----------
    info
        The exposure.
    ids
        Exposures guaranteed by id: those of the control state and those that requests name.
    header_flag
        What the header has under the agreed key, `None` if it has no such card; or `HeaderFlag.is_set`
        where a value was agreed too.
    """
    return info.exposure_id in ids or means_yes(header_flag)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"  # as FITS writes it
    return str(value).strip().lower()
