"""What a request waits for: one batch on the board each."""

from dataclasses import dataclass, field
from enum import StrEnum

from rapid.dispatch.models import BatchKey, BatchSpec
from rapid.results.models import DetectorState, ExposureSummary

SETTLED = frozenset(
    {
        DetectorState.FINISHED,
        DetectorState.FAILED,
        DetectorState.SUPERSEDED,
        DetectorState.QUARANTINED,
        DetectorState.EXCLUDED,
    }
)


class Stage(StrEnum):
    """What a batch is for."""

    PROCESS = "process"
    BUILD = "build"


@dataclass
class Target:
    """One batch that a request waits for.

    Attributes
    ----------
    is_own
        Posted for this request; otherwise it is the night's own, and is only followed.
    wanted
        Detectors whose end is waited for.
    without_raw
        Detectors that were asked for and have no raw.
    spec
        As it was posted; None if it was not posted by us.
    raws
        Detectors whose raw was posted.
    done
        Detectors that are known to have ended.
    give_up_ms
        Board time when raws that did not come are waited for no longer; 0 for never.
    is_stale
        Whether there may be a summary that was not read yet.
    """

    key: BatchKey
    stage: Stage
    is_own: bool
    wanted: frozenset[int]
    without_raw: dict[int, str] = field(default_factory=dict)
    spec: BatchSpec | None = None
    raws: frozenset[int] = frozenset()
    done: set[int] = field(default_factory=set)
    give_up_ms: int = 0
    is_stale: bool = True
    has_ended: bool = False
    summary: ExposureSummary | None = None

    def is_settled_in(self, summary: ExposureSummary) -> bool:
        """Whether a summary tells the end of every wanted detector."""
        return all(
            detector in summary.detectors and summary.detectors[detector].state in SETTLED for detector in self.wanted
        )

    def take(self, summary: ExposureSummary) -> None:
        """Take in a newer summary."""
        self.summary = summary
        self.done |= {
            detector
            for detector in self.wanted
            if detector in summary.detectors and summary.detectors[detector].state in SETTLED
        }
        self.has_ended = self.is_settled_in(summary)

    @property
    def waits_for_raws_only(self) -> bool:
        """Whether all that is missing is raws that did not come."""
        return self.summary is not None and all(
            detector in self.summary.detectors
            and self.summary.detectors[detector].state in SETTLED | {DetectorState.WAITING}
            for detector in self.wanted
        )

    @property
    def n_finished(self) -> int:
        """Wanted detectors with a result, as of the newest summary."""
        return len(self.wanted) - len(self.excluded) - len(self.not_finished)

    @property
    def excluded(self) -> dict[int, str]:
        """Wanted detectors that are switched off, with the reason: nothing of them is missing."""
        found: dict[int, str] = {}
        for detector in self.wanted:
            status = self.summary.detectors.get(detector) if self.summary else None
            # What a cancelled request leaves undone is settled under the same state, and was not switched off.
            was_off = self.spec is None or detector in self.spec.excluded
            if status is not None and status.state is DetectorState.EXCLUDED and was_off:
                found[detector] = status.reason or ""
        return found

    @property
    def not_finished(self) -> dict[int, str]:
        """Wanted detectors without a result, with state and reason; those that are switched off left out."""
        found: dict[int, str] = {}
        for detector in self.wanted - self.excluded.keys():
            status = self.summary.detectors.get(detector) if self.summary else None
            if status is None:
                found[detector] = "not processed"
            elif status.state is not DetectorState.FINISHED:
                found[detector] = f"{status.state.value}: {status.reason}" if status.reason else status.state.value
        return found
