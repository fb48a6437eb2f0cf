"""What the head node knows of an exposure while its raws come in."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BatchPlan:
    """What to post of an exposure: one pipeline and its detectors.

    Attributes
    ----------
    expected
        Detectors that the gather waits for.
    superseded
        Detectors left for the backlog, with the reason: settled for the gather (I1).
    excluded
        Detectors that are switched off, with the reason.
    """

    pipeline: str
    pool: str
    time_limit_ms: int
    expected: frozenset[int]
    raws: dict[int, str]
    superseded: dict[int, str] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CalibGroup:
    """Calibration exposures that were taken as one sequence.

    Attributes
    ----------
    members
        Exposure ids, in order.
    is_whole
        Every member that the sequence announced has a complete summary.
    kind
        Of the calib that is built of it; its image type if empty.
    """

    image_type: str
    group_id: str
    physical_filter: str | None
    members: tuple[int, ...]
    is_whole: bool
    kind: str = ""

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", self.image_type)

    @property
    def key(self) -> tuple[str, int]:
        """Kind and last exposure: which build it is."""
        return self.kind, self.members[-1]
