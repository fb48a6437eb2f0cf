"""Follow a night on the board: what was taken, what is done, how fast."""

import time
from dataclasses import dataclass, field

from rapid.dispatch.models import BatchKey, Event, EventKind


@dataclass
class ExposureProgress:
    """One planned exposure."""

    exposure_id: int
    label: str
    n_detectors: int
    n_delivered: int = 0
    n_failed: int = 0
    version: int = 0
    finished: set[int] = field(default_factory=set)
    """Detectors with a result of any pipeline."""

    batches: dict[str, bool] = field(default_factory=dict)
    """By pipeline: whether its summary is complete."""

    delivered_s: float | None = None
    complete_s: float | None = None
    """When the first of its pipelines had a complete summary: the quick look, which others run beside."""

    @property
    def n_finished(self) -> int:
        """Detectors with a result."""
        return len(self.finished)

    @property
    def is_complete(self) -> bool:
        """Whether every pipeline that runs on it has a complete summary."""
        return bool(self.batches) and all(self.batches.values())


@dataclass
class NightProgress:
    """A night as seen from outside: from deliveries and the board's events."""

    exposures: dict[int, ExposureProgress]
    builds: dict[str, bool | None] = field(default_factory=dict)
    """By batch: whether its calibs are complete; None while it runs."""

    quarantined: list[str] = field(default_factory=list)
    begin_s: float = field(default_factory=time.monotonic)

    def elapsed_s(self) -> float:
        """Seconds since the night began."""
        return time.monotonic() - self.begin_s

    def delivered(self, exposure_id: int) -> None:
        """Note a raw that was delivered."""
        exposure = self.exposures[exposure_id]
        exposure.n_delivered += 1
        if exposure.n_delivered == exposure.n_detectors:
            exposure.delivered_s = self.elapsed_s()

    def take(self, event: Event) -> None:
        """Take in one event of the board."""
        if event.kind is EventKind.RAW_QUARANTINED:
            self.quarantined.append(str(event.data.get("uri")))
            return
        if event.batch_id is None:
            return
        key = BatchKey.parse(event.batch_id)
        exposure = self.exposures.get(key.exposure_id)
        if key.pipeline.startswith("build_"):
            if event.kind is EventKind.EXPOSURE_POSTED:
                self.builds.setdefault(event.batch_id, None)
            elif event.kind is EventKind.SUMMARY_READY:
                self.builds[event.batch_id] = bool(event.data.get("is_complete"))
            return
        if exposure is None:
            return
        if event.kind is EventKind.EXPOSURE_POSTED:
            exposure.batches.setdefault(key.pipeline, False)
        elif event.kind is EventKind.JOB_FINISHED:
            if event.detector is not None:
                exposure.finished.add(event.detector)
        elif event.kind is EventKind.JOB_FAILED:
            exposure.n_failed += 1
        elif event.kind is EventKind.SUMMARY_READY:
            exposure.version = int(event.data.get("version") or exposure.version + 1)
            if event.data.get("is_complete"):
                exposure.batches[key.pipeline] = True
                exposure.complete_s = exposure.complete_s or self.elapsed_s()

    @property
    def n_complete(self) -> int:
        """Exposures with a complete summary."""
        return sum(exposure.is_complete for exposure in self.exposures.values())

    @property
    def n_open(self) -> int:
        """Exposures of which something was delivered and that have no complete summary."""
        return sum(e.n_delivered > 0 and e.complete_s is None for e in self.exposures.values())

    @property
    def n_delivered(self) -> int:
        """Raws delivered."""
        return sum(exposure.n_delivered for exposure in self.exposures.values())

    @property
    def n_finished(self) -> int:
        """Detectors done."""
        return sum(exposure.n_finished for exposure in self.exposures.values())

    @property
    def n_detectors(self) -> int:
        """Detectors of the whole night."""
        return sum(exposure.n_detectors for exposure in self.exposures.values())

    @property
    def builds_ended(self) -> bool:
        """Whether no calib build is running."""
        return all(outcome is not None for outcome in self.builds.values())

    @property
    def builds_complete(self) -> bool:
        """Whether every calib build gave a calib of every detector."""
        return all(self.builds.values())
