"""What was delivered to an installation: what it has to account for."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True)
class Delivery:
    """How a raw was delivered in the end.

    Attributes
    ----------
    key
        Its name below the raw store's root.
    at_s
        When, seconds since the Unix epoch.
    """

    key: str
    sha256: str
    is_whole: bool
    at_s: float = 0.0

    @classmethod
    def of(cls, key: str, data: bytes, *, is_whole: bool = True) -> "Delivery":
        """Describe a raw that is delivered now."""
        return cls(key, hashlib.sha256(data).hexdigest(), is_whole, datetime.now(UTC).timestamp())


@dataclass
class Delivered:
    """Everything that was delivered so far, by exposure and detector; and how it was delivered."""

    raws: dict[int, dict[int, Delivery]] = field(default_factory=dict)
    n_duplicates: int = 0
    n_late: int = 0
    n_truncated: int = 0
    n_mended: int = 0

    def take(self, exposure: int, detector: int, delivery: Delivery) -> None:
        """Note a delivery; of the same raw the last one stands."""
        raws = self.raws.setdefault(exposure, {})
        self.n_duplicates += detector in raws
        raws[detector] = delivery

    @property
    def n_raws(self) -> int:
        """Raws, duplicates left out."""
        return sum(len(raws) for raws in self.raws.values())

    @property
    def last_raw_s(self) -> dict[int, float]:
        """By exposure, when its last raw was delivered [s since the epoch]."""
        return {exposure: max(one.at_s for one in raws.values()) for exposure, raws in self.raws.items()}
