"""The night in memory: what the board's events and the results store's summaries add up to.

Pure bookkeeping: no clock, no I/O. `rapid.display.reader` feeds it; pages and viewers read it. An older
version of a summary never replaces a newer one (invariant I10), and a replayed event changes nothing.
"""

import heapq
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

from rapid.camera.models import Camera
from rapid.display.catalogue import with_derived
from rapid.display.models import DetectorCell, ExposureRow, ExposureState, ExposureView, MissingDetector
from rapid.errors import RapidError
from rapid.gather.sky_angles import zenith_of
from rapid.pipeline.store import default_book
from rapid.results.models import DetectorState, DetectorStatus, ExposureSummary, Scalar

SETTLED = frozenset(
    {
        DetectorState.FINISHED,
        DetectorState.FAILED,
        DetectorState.SUPERSEDED,
        DetectorState.QUARANTINED,
        DetectorState.EXCLUDED,
    }
)
N_GAPS, LEAST_GAPS = 11, 4
"""Intervals between exposures that tell the cadence: the last ones, and the fewest."""

N_DETAILED = 48
"""Exposures whose cells stay in memory; older ones are read from the store. 48 of 205 cells are ~15 MB."""


def day_obs_of(exposure_id: int) -> int:
    """Return the observing day of an exposure id, without the thousand years that name its controller.

    Examples
    --------
    >>> day_obs_of(2025111500226), day_obs_of(7024032100720)
    (20251115, 20240321)
    """
    day_obs = exposure_id // 100_000
    return day_obs if day_obs < 30_000_000 else day_obs % 10_000_000 + 20_000_000


def order_of(exposure_id: int) -> tuple[int, int, int]:
    """Return what sorts exposures of a night as they were numbered, whoever took them."""
    return day_obs_of(exposure_id), exposure_id % 100_000, exposure_id


def time_of_ms(at_ms: int) -> datetime:
    """Return ms since the Unix epoch as UTC."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC)


@dataclass
class Batch:
    """One pipeline's share of an exposure."""

    pipeline: str
    image_type: str = "unknown"
    info: dict[str, Any] = field(default_factory=dict)
    cells: dict[int, DetectorCell] = field(default_factory=dict)
    summary: ExposureSummary | None = None

    @property
    def is_settled(self) -> bool:
        """Whether every expected detector has ended."""
        return all(cell.state in SETTLED for cell in self.cells.values())

    @property
    def is_build(self) -> bool:
        """Whether this builds a calib out of several exposures."""
        return self.pipeline.startswith("build_")


@dataclass
class Track:
    """An exposure and its batches, by pipeline."""

    exposure_id: int
    batches: dict[str, Batch] = field(default_factory=dict)
    first_seen: datetime | None = None
    updated: datetime | None = None

    def batch(self, pipeline: str) -> Batch:
        """Return a pipeline's batch, a new one if it is not known yet."""
        return self.batches.setdefault(pipeline, Batch(pipeline))

    @property
    def main(self) -> Batch:
        """The batch whose numbers stand for the exposure: the one with most detectors that is not a build.

        Not one that runs beside another either, such as the slow fit of a wavefront.
        """
        shown = [batch for batch in self.batches.values() if not batch.is_build] or list(self.batches.values())
        beside = _beside()
        return max(shown, key=lambda batch: (batch.pipeline not in beside, _size_of(batch), batch.pipeline))


@lru_cache(maxsize=1)
def _beside() -> frozenset[str]:
    try:
        return default_book().beside
    except RapidError:
        return frozenset()  # who starts pipelines is told of the mistake; what is stored can be looked at all the same


@lru_cache(maxsize=1024)
def _the_same(status: DetectorStatus) -> DetectorStatus:
    """Return the one of all equal statuses that is kept."""
    return status


def _lean(summary: ExposureSummary) -> ExposureSummary:
    """Return a summary as a night keeps a thousand of them: without what the store is asked for when somebody looks.

    Of 205 detectors nearly all have the same status: shared, it takes a twentieth of the memory.
    """
    shared = {number: _the_same(status) for number, status in summary.detectors.items()}
    return summary.model_copy(update={"detectors": shared, "provenance": None})


def _size_of(batch: Batch) -> int:
    return batch.summary.n_expected if batch.summary is not None and not batch.cells else len(batch.cells)


class LiveNight:
    """All exposures of one night.

    Parameters
    ----------
    names
        Detector names by number.
    day_obs
        The night; `None` begins with whatever night the first exposure is of.
    camera
        For the direction of the zenith, which is not known without it.
    """

    def __init__(self, names: Mapping[int, str], *, day_obs: int | None = None, camera: Camera | None = None) -> None:
        self._names = names
        self._camera = camera
        self.day_obs = day_obs
        """The night on show; None before the first exposure."""
        self.tracks: dict[int, Track] = {}
        self._detailed: set[int] = set()
        self._gap_s: float | None = None
        self._is_gap_known = False

    # -- what happens ------------------------------------------------------------------------------

    def put_exposure(
        self,
        exposure_id: int,
        pipeline: str,
        *,
        image_type: str,
        info: Mapping[str, Any],
        detectors: Mapping[int, DetectorStatus],
        metrics: Mapping[int, Mapping[str, Scalar]],
        at: datetime | None,
    ) -> list[DetectorCell]:
        """Record one consistent reading of a batch; return the cells that are news.

        A finished detector stays finished: the reading may be older than an event already heard. Detectors
        that are no longer expected leave, unless they have a result.
        """
        if not self._is_ours(exposure_id):
            return []
        track = self._track(exposure_id, at)
        batch = track.batch(pipeline)
        batch.image_type = image_type
        batch.info.update(info)
        for gone in [
            n for n, cell in batch.cells.items() if n not in detectors and cell.state is DetectorState.WAITING
        ]:
            del batch.cells[gone]
        changed = []
        for detector, status in detectors.items():
            known = batch.cells.get(detector)
            if known is not None and known.state in {DetectorState.FINISHED, status.state}:
                if not known.metrics and (found := metrics.get(detector)):
                    known.metrics = with_derived(found)
                    changed.append(known)
                continue
            cell = self._cell(detector, pipeline, status.state, status.reason)
            cell.metrics = with_derived(metrics.get(detector, {}))
            batch.cells[detector] = cell
            changed.append(cell)
        self._trim(exposure_id)
        return changed

    def put_detector(
        self,
        exposure_id: int,
        pipeline: str,
        detector: int,
        state: DetectorState,
        *,
        reason: str | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        at: datetime | None,
    ) -> DetectorCell | None:
        """Record a detector's new state; return its cell, or `None` if that is not news."""
        if not self._is_ours(exposure_id):
            return None
        track = self._track(exposure_id, at)
        batch = track.batch(pipeline)
        if batch.summary is not None and not batch.cells:
            # Its cells had been let go: without the others, one late detector would pass for the whole exposure.
            for number, status in batch.summary.detectors.items():
                batch.cells[number] = self._cell(number, pipeline, status.state, status.reason)
        known = batch.cells.get(detector)
        if known is not None and known.state is DetectorState.FINISHED and state is not DetectorState.FINISHED:
            return None  # exactly-once effect: nothing undoes a completion
        cell = self._cell(detector, pipeline, state, reason)
        if metrics:
            cell.metrics = with_derived(metrics)
        elif known is not None:
            cell.metrics = known.metrics
        batch.cells[detector] = cell
        self._trim(exposure_id)
        return cell

    def put_summary(self, summary: ExposureSummary, *, at: datetime | None = None) -> list[DetectorCell] | None:
        """Record a summary; return the cells it changes, or `None` if what was known is as new."""
        if not self._is_ours(summary.exposure):
            return None
        when = at or summary.gathered_at
        track = self._track(summary.exposure, when)
        batch = track.batch(summary.pipeline)
        if batch.summary is not None and batch.summary.version == summary.version:
            added = summary.products.keys() - batch.summary.products.keys()
            if not added and summary.n_afterburned == batch.summary.n_afterburned:
                return None
            # Plots that were drawn, or numbers that were measured, after the summary: the same version, with more to show.
            batch.summary = _lean(summary)
            return []
        if batch.summary is not None and batch.summary.version > summary.version:
            return None
        batch.summary = _lean(summary)
        batch.image_type = summary.image_type
        batch.info.update(summary.info)
        changed = []
        if self._is_detailed(summary.exposure):
            for detector, status in summary.detectors.items():
                known = batch.cells.get(detector)
                if known is not None and known.state in {DetectorState.FINISHED, status.state}:
                    continue  # finished since the gather: the re-gather will say so
                cell = self._cell(detector, summary.pipeline, status.state, status.reason)
                cell.metrics = known.metrics if known is not None else {}
                batch.cells[detector] = cell
                changed.append(cell)
        self._trim(summary.exposure)
        return changed

    # -- what is shown -----------------------------------------------------------------------------

    @property
    def newest(self) -> int | None:
        """Id of the newest exposure, or `None` in an empty night."""
        return max(self.tracks, default=None, key=order_of)

    @property
    def gap_s(self) -> float | None:
        """Median time between the last exposures [s]; None while there are too few to tell."""
        if not self._is_gap_known:  # asked for with every result, of a night of a thousand exposures
            seen = (track.first_seen for track in self.tracks.values() if track.first_seen is not None)
            newest = heapq.nlargest(N_GAPS + 1, seen)
            gaps = sorted((later - sooner).total_seconds() for later, sooner in pairwise(newest))
            self._gap_s = gaps[len(gaps) // 2] if len(gaps) >= LEAST_GAPS else None
            self._is_gap_known = True
        return self._gap_s

    def rows(self) -> list[ExposureRow]:
        """Return every exposure as a row, newest first."""
        return [self.row(exposure_id) for exposure_id in sorted(self.tracks, key=order_of, reverse=True)]

    def row(self, exposure_id: int) -> ExposureRow:
        """Return one exposure as a row of the night.

        Raises
        ------
        KeyError
            Raised for an exposure that is not of this night.
        """
        track = self.tracks[exposure_id]
        return make_row(track, self._names, self._camera)

    def view(self, exposure_id: int) -> ExposureView:
        """Return everything known of one exposure; raises `KeyError` as `row` does."""
        track = self.tracks[exposure_id]
        main = track.main
        cells: dict[int, DetectorCell] = {}
        for batch in sorted(track.batches.values(), key=lambda batch: (batch is not main, batch.is_build)):
            if batch.is_build and batch is not main:
                continue
            for detector, cell in batch.cells.items():
                cells.setdefault(detector, cell)
        products: dict[str, str] = {}
        for batch in (*(b for b in track.batches.values() if b is not main), main):
            products.update(batch.summary.products if batch.summary is not None else {})
        return ExposureView(
            row=make_row(track, self._names, self._camera),
            info=main.info,
            products=products,
            detectors=[cells[detector] for detector in sorted(cells)],
            summaries=[batch.summary for batch in track.batches.values() if batch.summary is not None],
        )

    # -- inside ------------------------------------------------------------------------------------

    def _is_ours(self, exposure_id: int) -> bool:
        day_obs = day_obs_of(exposure_id)
        if self.day_obs is None or day_obs > self.day_obs:
            self.day_obs = day_obs
            self.tracks.clear()  # a new night has begun; the store keeps the old one
            self._detailed.clear()
            self._is_gap_known = False
        return day_obs == self.day_obs

    def _is_detailed(self, exposure_id: int) -> bool:
        newer = sum(1 for known in self._detailed if order_of(known) > order_of(exposure_id))
        return newer < N_DETAILED

    def _trim(self, exposure_id: int) -> None:
        self._detailed.add(exposure_id)
        while len(self._detailed) > N_DETAILED:
            oldest = min(self._detailed, key=order_of)
            self._detailed.discard(oldest)
            for batch in self.tracks[oldest].batches.values():
                if batch.summary is not None:
                    batch.cells = {}

    def _track(self, exposure_id: int, at: datetime | None) -> Track:
        track = self.tracks.setdefault(exposure_id, Track(exposure_id))
        if at is not None:
            if track.first_seen is None or at < track.first_seen:
                track.first_seen = at
                self._is_gap_known = False
            track.updated = max(track.updated or at, at)
        return track

    def _cell(self, detector: int, pipeline: str, state: DetectorState, reason: str | None) -> DetectorCell:
        name = self._names.get(detector, f"detector {detector}")
        return DetectorCell(detector=detector, name=name, state=state, reason=reason, pipeline=pipeline)


def make_row(track: Track, names: Mapping[int, str], camera: Camera | None = None) -> ExposureRow:
    """Return a track as a row: the newest summary's word where there is one, else the count so far."""
    main = track.main
    cells = main.cells.values()
    info = main.info
    if main.summary is not None and not main.cells:
        n_finished, n_expected = main.summary.n_finished, main.summary.n_expected
        states = [status.state for status in main.summary.detectors.values()]
        n_failed, n_excluded = states.count(DetectorState.FAILED), states.count(DetectorState.EXCLUDED)
    else:
        states = [cell.state for cell in cells]
        n_finished, n_failed = states.count(DetectorState.FINISHED), states.count(DetectorState.FAILED)
        n_excluded = states.count(DetectorState.EXCLUDED)
        n_expected = len(states) - n_excluded - states.count(DetectorState.SUPERSEDED)
    summary = main.summary
    return ExposureRow(
        exposure_id=track.exposure_id,
        day_obs=day_obs_of(track.exposure_id),
        seq_num=track.exposure_id % 100_000,
        image_type=main.image_type,
        physical_filter=info.get("physical_filter"),
        object_name=info.get("object_name"),
        program=info.get("program"),
        begin=info.get("begin"),
        end=info.get("end"),
        exposure_time_s=info.get("exposure_time_s"),
        airmass=info.get("airmass"),
        azimuth_deg=info.get("azimuth_deg"),
        elevation_deg=info.get("elevation_deg"),
        zenith_deg=zenith_of(info, camera) if camera is not None else None,
        state=state_of(main, n_finished=n_finished, n_expected=n_expected),
        pipeline=main.pipeline,
        pipelines=sorted(track.batches),
        version=summary.version if summary is not None else 0,
        n_finished=n_finished,
        n_failed=n_failed,
        n_expected=n_expected,
        n_excluded=n_excluded,
        n_later=states.count(DetectorState.SUPERSEDED),
        missing=_missing(main, names),
        excluded=_excluded(main, names) if n_excluded else [],
        n_excluded_amps=sum(len(amps) for amps in (info.get("excluded_amps") or {}).values()),
        metrics=with_derived(summary.metrics) if summary is not None else medians(cell.metrics for cell in cells),
        is_provisional=summary is None,
        timings=summary.timings if summary is not None else {},
        n_summarised=summary.n_finished if summary is not None else 0,
        first_seen=track.first_seen,
        updated=track.updated,
    )


def state_of(batch: Batch, *, n_finished: int, n_expected: int) -> ExposureState:
    """Return how far a batch has come."""
    settled = batch.is_settled if batch.cells else batch.summary is not None
    if settled and (batch.cells or batch.summary is not None):
        if n_finished >= n_expected:
            return ExposureState.COMPLETE
        return ExposureState.PARTIAL if n_finished else ExposureState.FAILED
    if batch.summary is not None:
        return ExposureState.PARTIAL
    begun = any(cell.state not in {DetectorState.WAITING, DetectorState.QUEUED, DetectorState.EXCLUDED}
                for cell in batch.cells.values())  # fmt: skip
    return ExposureState.RUNNING if begun else ExposureState.WAITING


def medians(results: Iterable[Mapping[str, Scalar]]) -> dict[str, Scalar]:
    """Return the median of every number over detectors, under the names a summary would use."""
    columns: dict[str, list[float]] = {}
    for metrics in results:
        for key, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                columns.setdefault(key, []).append(value)
    return {f"{key}_median": statistics.median(values) for key, values in columns.items()}


def _stated(batch: Batch) -> list[tuple[int, DetectorState, str | None]]:
    """Return number, state and reason of every detector, from the summary alone if the cells were let go."""
    if batch.cells:
        return sorted((cell.detector, cell.state, cell.reason) for cell in batch.cells.values())
    stated = batch.summary.detectors if batch.summary is not None else {}
    return sorted((number, status.state, status.reason) for number, status in stated.items())


def _named(number: int, state: DetectorState, reason: str | None, names: Mapping[int, str]) -> MissingDetector:
    return MissingDetector(detector=number, name=names.get(number, f"detector {number}"), state=state, reason=reason)


def _excluded(batch: Batch, names: Mapping[int, str]) -> list[MissingDetector]:
    return [_named(*one, names) for one in _stated(batch) if one[1] is DetectorState.EXCLUDED]


def _missing(batch: Batch, names: Mapping[int, str]) -> list[MissingDetector]:
    """Name the detectors that have no result, once nobody waits for them as a matter of course."""
    fine = {DetectorState.FINISHED, DetectorState.EXCLUDED, DetectorState.SUPERSEDED}
    if batch.summary is None and not batch.is_settled:
        fine = set(DetectorState) - {DetectorState.FAILED, DetectorState.QUARANTINED}
    return [_named(*one, names) for one in _stated(batch) if one[1] not in fine]
