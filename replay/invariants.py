"""Is every raw accounted for, exactly once? Read from the stores and the board, after a night.

What the invariants promise (docs/architecture.md), as questions that the stores and the board answer. Each is asked from
outside, of what was delivered and of what displays read, never of the process that should have kept it.
"""

import io
import json
import math
import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from astropy.io import fits

from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchState
from rapid.errors import NotFoundError
from rapid.pipeline.models import AFTER, base_of
from rapid.products.directory import DirectoryStore
from rapid.results.models import DetectorResult, DetectorState, ExposureSummary
from rapid.results.store import ResultsStore
from replay.delivered import Delivered

SETTLED = frozenset(
    {
        DetectorState.FINISHED,
        DetectorState.FAILED,
        DetectorState.SUPERSEDED,
        DetectorState.QUARANTINED,
        DetectorState.EXCLUDED,
    }
)


SETTLED_WELL = frozenset({"finished", "failed", "superseded", "excluded"})
"""What may become of a raw that was delivered whole."""

RUN = "prompt"
BATCHES = 5000
"""What the board remembers."""

MANY = 100_000


def is_build(pipeline: str) -> bool:
    """Whether a pipeline combines exposures into a calib: its results are not those of one raw."""
    return pipeline.startswith("build_")


@dataclass
class Fates:
    """What became of the raws of one exposure: detectors by pipeline and fate."""

    by_pipeline: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    quarantined: set[int] = field(default_factory=set)

    def note(self, pipeline: str, fate: str, detectors: Iterable[int]) -> None:
        """Note what became of some detectors under a pipeline."""
        self.by_pipeline.setdefault(pipeline, {}).setdefault(fate, set()).update(detectors)

    def has(self, pipeline: str, fate: str, detector: int) -> bool:
        """Whether a detector has a fate."""
        return detector in self.by_pipeline.get(pipeline, {}).get(fate, set())

    def of(self, detector: int) -> list[str]:
        """Return every fate of a detector's raw; there should be one under each pipeline that runs on it."""
        return [fate for fates in self.each(detector).values() for fate in fates]

    def each(self, detector: int) -> dict[str, list[str]]:
        """Return a detector's fates by pipeline; what was quarantined ran under none."""
        found = {
            pipeline: [fate for fate, detectors in fates.items() if detector in detectors]
            for pipeline, fates in sorted(self.by_pipeline.items())
            if any(detector in detectors for detectors in fates.values())
        }
        if detector in self.quarantined:
            found.setdefault("", []).append("quarantined")
        return found

    @property
    def finished(self) -> set[int]:
        """Detectors with a result."""
        return {d for fates in self.by_pipeline.values() for d in fates.get("finished", ())}


LATER = ("visit_summary.", "fwhm_map.", "psf_whiskers_camera.", "psf_whiskers_altaz.", "zero_point_map.", "psf_map.")
"""Made after a summary is out, whole, and named by its row a moment later, or never if the gather ends in between."""

NAMED_WITHIN_S = 60.0
"""Between the first of these files and the row that names them: drawing takes seconds, on a busy machine tens of them."""


@dataclass(frozen=True)
class Interruption:
    """A time at which a gather's work ended unasked, or could not go on: killed, or without a disk [s since the epoch]."""

    begin_s: float
    end_s: float

    def explains(self, written_s: float) -> bool:
        """Whether a file that was written then may never have been named for it."""
        return self.begin_s <= written_s + NAMED_WITHIN_S and written_s <= self.end_s


class Accountant:
    """Compares what was delivered with what the installation says became of it.

    Each method yields problems, as sentences; none is what we want.

    Parameters
    ----------
    interruptions
        Of gathers: what was being drawn then is drawn no more, and its files belong to no row. Read anew when it is asked.
    memory_s
        How long the board remembers an exposure: one whose raws came before that is asked of the results store alone.
    """

    def __init__(
        self,
        camera: str,
        delivered: Delivered,
        results: ResultsStore,
        products: DirectoryStore,
        board: Board,
        *,
        interruptions: Sequence[Interruption] = (),
        memory_s: float = math.inf,
    ) -> None:
        self._camera = camera
        self._delivered = delivered
        self._results = results
        self._products = products
        self._board = board
        self._interruptions = interruptions
        self._memory_s = memory_s

    def _may_be_forgotten(self) -> frozenset[int]:
        """Exposures that the board may have forgotten, for the time that has passed."""
        since_s = datetime.now(UTC).timestamp() - self._memory_s
        return frozenset(exposure for exposure, last_s in self._delivered.last_raw_s.items() if last_s < since_s)

    def _batches(self) -> dict[int, list[BatchState]]:
        """Return what the board knows, by exposure, builds of calibs left out: they are of several."""
        states = [self._board.state(key) for key in self._board.recent(BATCHES)]
        batches: dict[int, list[BatchState]] = {}
        for state in states:
            if state is not None and not is_build(state.key.pipeline):
                batches.setdefault(state.key.exposure_id, []).append(state)
        return batches

    def fates(self) -> dict[int, Fates]:
        """Return, by exposure, what became of its raws."""
        fates = {exposure_id: Fates() for exposure_id in self._delivered.raws}
        for exposure_id, found in fates.items():
            for pipeline, detectors in self._results.finished_detectors(self._camera, exposure_id).items():
                if not is_build(pipeline):
                    found.note(pipeline, "finished", detectors)
        for row in self._results.failures(self._camera, limit=MANY):
            if not is_build(row["pipeline"]):
                fates.setdefault(row["exposure"], Fates()).note(row["pipeline"], "failed", [row["detector"]])
        for record in self._results.quarantined(self._camera, limit=MANY):
            if record.exposure in fates and record.detector is not None:
                fates[record.exposure].quarantined.add(record.detector)
        for exposure_id, states in self._batches().items():
            for state in states:
                found = fates.setdefault(exposure_id, Fates())
                pipeline = state.key.pipeline
                for detector, status in state.detectors.items():
                    is_left = status.state in {DetectorState.SUPERSEDED, DetectorState.EXCLUDED}
                    if is_left and state.key.run == RUN and not found.has(pipeline, "finished", detector):
                        found.note(pipeline, status.state.value, [detector])
        return fates

    def unsettled(self) -> Iterator[str]:
        """What is still to come: cheap enough to ask again and again."""
        fates = self.fates()
        for exposure_id, raws in self._delivered.raws.items():
            missing = sorted(detector for detector in raws if not fates[exposure_id].of(detector))
            if missing:
                yield f"exposure {exposure_id}: nothing became of detectors {missing}"
        batches = self._batches()
        for exposure_id in self._delivered.raws.keys() - self._may_be_forgotten():
            if exposure_id not in batches:
                yield f"exposure {exposure_id} is not on the board"
        for exposure_id, states in batches.items():
            for state in states:
                yield from unsettled_batch(state, self._delivered.raws.get(exposure_id, {}))
        status = self._board.status()
        for name in ("running", "delayed", "gathers_due", "gathers_running"):
            if getattr(status, name):
                yield f"the board has {getattr(status, name)} {name}"
        for queue in status.queues:
            if queue.current or queue.backlog:
                yield f"pool {queue.pool} has {queue.current} + {queue.backlog} queued"

    def unaccounted(self) -> Iterator[str]:
        """I1 and I3: every raw has exactly one fate, and it is the one it deserves."""
        fates = self.fates()
        n_failed = 0
        for exposure_id, raws in self._delivered.raws.items():
            for detector, delivery in raws.items():
                found = fates[exposure_id].each(detector)
                n_failed += sum(fate == ["failed"] for fate in found.values())
                wanted = SETTLED_WELL if delivery.is_whole else {"quarantined"}
                if not found or any(len(fate) != 1 or fate[0] not in wanted for fate in found.values()):
                    kind = "whole" if delivery.is_whole else "truncated"
                    said = fates[exposure_id].of(detector) or "lost"
                    yield f"{exposure_id} detector {detector}, delivered {kind}: {said}"
            invented = fates[exposure_id].finished - set(raws)
            if invented:
                yield f"{exposure_id}: results of raws that never came: {sorted(invented)}"
        letters = [letter for letter in self._board.dead_letters(MANY) if letter.detector is not None]
        if len(letters) != len(self._results.failures(self._camera, limit=MANY)):
            yield f"{len(letters)} dead letters, but not as many failures in the results store"

    def wrong_batches(self, *, may_forget: bool = False) -> Iterator[str]:
        """I4: the board's sets are those of the results store; each completion counted once.

        Parameters
        ----------
        may_forget
            The board's server lost its last writes, in a power cut: completions may have been counted and forgotten; the
            board has their detectors from the results store.
        """
        n_finished, known = 0, set()
        for key in self._board.recent(BATCHES):
            state = self._board.state(key)
            if state is None:
                continue
            known.add((key.exposure_id, key.pipeline))
            n_finished += len(state.finished)
            odd = sorted(state.finished ^ self._stored(key))
            if odd:
                yield f"{key.id}: board and results store differ about detectors {odd}"
        for exposure_id in sorted(self._may_be_forgotten()):
            for pipeline, stored_detectors in self._results.finished_detectors(self._camera, exposure_id).items():
                n_finished += len(stored_detectors) if (exposure_id, pipeline) not in known else 0
                summary = self._results.latest_summary(self._camera, exposure_id, pipeline=pipeline)
                if summary is not None and (exposure_id, pipeline + AFTER) not in known:
                    n_finished += summary.n_afterburned
        counted = self._board.status().counters.get("finished", 0)
        if counted > n_finished or (counted < n_finished and not may_forget):
            yield f"{counted} completions were counted, {n_finished} detectors are finished"

    def _stored(self, key: BatchKey) -> frozenset[int]:
        """Return the detectors of a batch that have a result; those to whose results an afterburner has added."""
        base = base_of(key.pipeline)
        if base is None:
            stored = self._results.finished_detectors(self._camera, key.exposure_id, run=key.run)
            return stored.get(key.pipeline, frozenset())
        found = self._results.results(key.exposure_id, camera=self._camera, run=key.run, pipeline=base)
        return frozenset(result.detector for result in found if result.provenance.afterburner is not None)

    def wrong_summaries(self) -> Iterator[str]:
        """I4, I10: each batch has summaries with versions 1 to n, the last of which shows everything.

        That of an afterburner has none: what it found joins the summary of the batch that it follows.
        """
        for states in self._batches().values():
            for state in states:
                if (base := base_of(state.key.pipeline)) is not None:
                    yield from self._wrong_afterburner(state, base)
                    continue
                mine = [
                    summary
                    for summary in self._results.summary_versions(self._camera, state.key.exposure_id)
                    if summary.pipeline == state.key.pipeline and summary.run == state.key.run
                ]
                yield from _wrong_versions(state, sorted(mine, key=lambda summary: summary.version))

    def _wrong_afterburner(self, state: BatchState, base: str) -> Iterator[str]:
        key = state.key
        summary = self._results.latest_summary(self._camera, key.exposure_id, pipeline=base, run=key.run)
        n_told = summary.n_afterburned if summary is not None else 0
        if n_told != len(state.finished):
            yield f"{key.id} has finished {len(state.finished)} detectors, the summary of {base} tells of {n_told}"

    def unnamed_plots(self, *, until_s: float = math.inf) -> list[str]:
        """Return the keys of plots and tables that belong to no row, though no gather was interrupted.

        Parameters
        ----------
        until_s
            Only what was written before [s since the epoch]: what came later may still be in hand.
        """
        named = {
            key
            for exposure_id in self._delivered.raws
            for summary in self._results.summary_versions(self._camera, exposure_id)
            for key in summary.products.values()
        }
        return [
            key
            for key, written_s in self._later_files()
            if key not in named
            and written_s < until_s
            and not any(one.explains(written_s) for one in self._interruptions)
        ]

    def _later_files(self) -> list[tuple[str, float]]:
        """Return keys of what is made after a summary is out, and when each was written [s since the epoch]."""
        return [
            (str(path.relative_to(self._products.root)), path.stat().st_mtime)
            for path in sorted(self._products.root.rglob("*"))
            if path.name.startswith(LATER) and path.is_file()
        ]

    def wrong_products(self, *, until_s: float = math.inf) -> Iterator[str]:
        """I3: every product is whole and of the raw that was delivered, and nothing half-written is left.

        Parameters
        ----------
        until_s
            Of plots, only those that were written before must belong to a row [s since the epoch].
        """
        named: set[str] = set()
        for exposure_id, raws in self._delivered.raws.items():
            for result in self._results.results(exposure_id, camera=self._camera):
                named |= set(result.products.values())
                delivery = raws.get(result.detector)
                if (
                    delivery is not None
                    and not is_build(result.pipeline)
                    and result.provenance.raw_sha256 != delivery.sha256
                ):
                    yield f"{exposure_id} detector {result.detector}: result of another raw"
                yield from self._wrong_result(result)
            for summary in self._results.summary_versions(self._camera, exposure_id):
                named |= set(summary.products.values())
                for key in summary.products.values():
                    if not self._products.exists(key):
                        yield f"{key} is not there"
                    elif key.endswith(".jpg") and self._products.get(key)[-2:] != b"\xff\xd9":
                        yield f"{key} is cut off"
        for path in sorted(self._products.root.rglob("*")):
            if path.is_dir():
                continue
            key = str(path.relative_to(self._products.root))
            if path.name.startswith("."):
                yield f"{key} is left of a product half-written"
            elif path.suffix == ".json" and not _is_json(path):
                yield f"{key} is no JSON"
            elif key not in named and path.parts[-3] != "night" and not path.name.startswith(("summary.", *LATER)):
                yield f"{key} belongs to no result"
        for key in self.unnamed_plots(until_s=until_s):
            yield f"{key} belongs to no summary, and no gather ended while it was made"

    def _wrong_result(self, result: DetectorResult) -> Iterator[str]:
        if is_build(result.pipeline):
            return
        key = result.products.get("binned")
        if key is None:
            yield f"{result.exposure} detector {result.detector} has no image"
            return
        try:
            data = io.BytesIO(self._products.get(key))
            with warnings.catch_warnings(action="error"), fits.open(data) as hdus:  # of a file cut off it only warns
                if hdus[0].header["RAWSHA"] != result.provenance.raw_sha256 or not hdus[0].data.size:
                    yield f"{key} is not the image of its result"
        except (NotFoundError, OSError, TypeError, ValueError, Warning) as error:
            yield f"{key} cannot be read: {error}"


def unsettled_batch(state: BatchState, came: Container[int]) -> Iterator[str]:
    """Tell what a batch still waits for.

    Parameters
    ----------
    came
        Detectors whose raws were delivered. For one that never comes a batch waits for ever, and that is well once it was
        gathered without it.
    """
    was_gathered = state.version > 0 and not state.gathering
    waiting = sorted(
        number
        for number, status in state.detectors.items()
        if status.state not in SETTLED
        and not (was_gathered and status.state is DetectorState.WAITING and number not in came)
    )
    if waiting:
        yield f"{state.key.id} waits for detectors {waiting}"
    if state.gathering or state.changed or state.version == 0:
        yield f"{state.key.id} has a gather to come"


def _wrong_versions(state: BatchState, mine: list[ExposureSummary]) -> Iterator[str]:
    versions = [summary.version for summary in mine]
    if not mine or versions != list(range(1, len(mine) + 1)):
        yield f"{state.key.id} has summaries of versions {versions}"
        return
    last = mine[-1]
    if last.version != state.version:
        yield f"{state.key.id}: the board knows version {state.version}, the results store {last.version}"
    sizes = [summary.n_finished for summary in mine]
    if sizes != sorted(sizes):
        yield f"{state.key.id}: detectors vanished between versions: {sizes}"
    shown = frozenset(n for n, status in last.detectors.items() if status.state is DetectorState.FINISHED)
    if shown != state.finished:
        yield f"{state.key.id}: the last summary lacks detectors {sorted(state.finished - shown)}"


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def one_each(problems: Iterable[str], limit: int = 20) -> list[str]:
    """Return the first problems, and how many more there are."""
    found = list(problems)
    return found[:limit] + ([f"and {len(found) - limit} more"] if len(found) > limit else [])
