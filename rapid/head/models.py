"""What the head node knows of an exposure while its raws come in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPlan:
    """What to post of an exposure: one pipeline and its detectors.

    Attributes
    ----------
    expected
        Detectors that the gather waits for.
    superseded
        Detectors that arrived though they were not asked for: settled, and on the backlog (I1).
    """

    pipeline: str
    pool: str
    time_limit_ms: int
    expected: frozenset[int]
    raws: dict[int, str]
    superseded: frozenset[int] = frozenset()


@dataclass(frozen=True)
class CalibGroup:
    """Calibration exposures that were taken as one sequence.

    Attributes
    ----------
    members
        Exposure ids, in order.
    is_whole
        Every member that the sequence announced has a complete summary.
    """

    image_type: str
    group_id: str
    physical_filter: str | None
    members: tuple[int, ...]
    is_whole: bool
