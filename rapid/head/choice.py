"""Choose what is done with an exposure: once, when its first raw comes, under the control state of that moment (I9).

`make_choice` is pure; `Chooser` asks the board and the control state for what it needs, and remembers what goes from
exposure to exposure: the phase of the pattern, the level of the ladder, the cadence.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from rapid.camera.models import Camera, Purpose
from rapid.control.models import ControlDocument, ControlState, Timeouts
from rapid.dispatch.board import AsyncBoard
from rapid.dispatch.models import Load
from rapid.errors import RapidError, StoreError
from rapid.exposure.models import ExposureInfo
from rapid.head.decide import WAVEFRONT
from rapid.head.shedding import Cadence, Shedder, Shedding
from rapid.patterns import PatternError, VisitMode, is_guaranteed, parse_pattern, phase_of
from rapid.pipeline.models import PipelineBook
from rapid.pipeline.store import choose_pipeline

log = structlog.get_logger()

NO_LOAD = Load(workers=0, running_current=0, running_backlog=0, queued_current=0)


@dataclass(frozen=True)
class Waits:
    """How long the gathers of an exposure wait [ms]."""

    gather_ms: int = 5_000
    regather_ms: int = 45_000
    deadline_ms: int = 120_000

    def changed_by(self, timeouts: Timeouts) -> "Waits":
        """Return these with what the control state says otherwise."""
        return Waits(
            self.gather_ms if timeouts.gather_s is None else round(timeouts.gather_s * 1000),
            self.regather_ms if timeouts.regather_s is None else round(timeouts.regather_s * 1000),
            self.deadline_ms if timeouts.deadline_s is None else round(timeouts.deadline_s * 1000),
        )


class ControlSource(Protocol):
    """Where the control state in force is read."""

    async def read(self) -> ControlDocument:
        """Return it."""
        ...


@dataclass(frozen=True)
class Choice:
    """What is done with one exposure.

    Attributes
    ----------
    selected
        Science detectors to process now.
    later
        Science detectors left for the backlog, with the reason.
    excluded
        Detectors that are switched off, with the reason.
    pipelines
        Pipeline by image type, where the operator wants another than the book.
    control
        What the exposure records of all this.
    """

    selected: frozenset[int]
    later: Mapping[int, str] = field(default_factory=dict)
    excluded: Mapping[int, str] = field(default_factory=dict)
    pipelines: Mapping[str, str] = field(default_factory=dict)
    waits: Waits = field(default_factory=Waits)
    control: Mapping[str, Any] = field(default_factory=dict)


def rungs(state: ControlState, camera: Camera, phase: int) -> list[tuple[str, frozenset[int]]]:
    """Return the patterns an exposure may get, with their science detectors: the one in force, then down the ladder.

    Each is cut with the one before, so that going down never adds a detector. A pattern that this camera does not
    have, or that leaves as many or none, is no rung.
    """
    science = camera.science_ids
    named = state.patterns
    selected = parse_pattern(state.pattern).detectors(camera, phase, named) & science
    found = [(state.pattern, selected)]
    for text in state.shedding.ladder:
        try:
            fewer = found[-1][1] & parse_pattern(text).detectors(camera, phase, named)
        except PatternError:
            continue
        if 0 < len(fewer) < len(found[-1][1]):
            found.append((text, fewer))
    return found


def make_choice(
    document: ControlDocument,
    camera: Camera,
    info: ExposureInfo,
    *,
    phase: int,
    guaranteed: bool,
    shedding: Shedding,
    steps: list[tuple[str, frozenset[int]]],
    excluded: Mapping[int, str],
    waits: Waits,
) -> Choice:
    """Return what is done with an exposure.

    Parameters
    ----------
    guaranteed
        Process every detector, whatever pattern and load are.
    shedding
        The level that was decided on.
    steps
        From `rungs`.
    excluded
        Detectors switched off, with the reason.
    waits
        How long gathers wait unless the control state says otherwise.
    """
    state = document.state
    pattern, whole = steps[0]
    shed_to, selected = steps[shedding.level]
    later: dict[int, str] = {}
    if guaranteed:
        selected = camera.science_ids
    else:
        later = dict.fromkeys(camera.science_ids - whole, f"not in pattern {pattern}")
        later |= dict.fromkeys(whole - selected, f"shed to {shed_to}: newer images go first")
    control: dict[str, Any] = {
        "version": document.version,
        "pattern": pattern,
        "phase": phase,
        "visit_mode": state.visit_mode.value,
        "worker_mode": state.worker_mode.value,
        "guaranteed": guaranteed,
        "shed_level": shedding.level,
    }
    if shedding.level:
        control["shed_to"] = shed_to
    if shedding.predicted_s is not None:
        control["predicted_s"] = round(shedding.predicted_s, 3)
    if shedding.cadence_s is not None:
        control["cadence_s"] = round(shedding.cadence_s, 3)
    pipelines = {}
    if (chosen := state.pipelines.get(info.image_type)) is not None:
        pipelines[info.image_type.value] = chosen
    if state.wavefront_pipeline is not None:
        pipelines[WAVEFRONT] = state.wavefront_pipeline
    return Choice(
        selected=selected - excluded.keys(),
        later={detector: why for detector, why in later.items() if detector not in excluded},
        excluded=excluded,
        pipelines=pipelines,
        waits=waits.changed_by(state.timeouts),
        control=control,
    )


class Chooser:
    """Chooses for one exposure after the other, as long as its head leads.

    Parameters
    ----------
    camera, board, book
        As for the head.
    source
        Where the control state is read.
    waits
        How long gathers wait unless the control state says otherwise.
    """

    def __init__(
        self,
        camera: Camera,
        board: AsyncBoard,
        book: PipelineBook,
        source: ControlSource,
        waits: Waits,
    ) -> None:
        self._waits = waits
        self._camera = camera
        self._board = board
        self._book = book
        self._source = source
        self._shedder = Shedder()
        self._cadence = Cadence()
        self._visits = 0
        self._newest = 0

    async def resume(self) -> None:
        """Go on where the head before left off: phase and level of the newest exposure on the board."""
        for key in await self._board.recent(20):
            state = await self._board.state(key)
            if state is not None and "visit" in state.control:
                self._visits = int(state.control["visit"]) + 1
                self._shedder.level = int(state.control.get("shed_level", 0))
                return

    async def choose(
        self,
        info: ExposureInfo,
        header: Mapping[str, Any],
        *,
        age_s: float = 0.0,
        excluded: Mapping[int, str],
        expected: frozenset[int] | None = None,
        asked_for: bool = False,
    ) -> Choice:
        """Return what is done with an exposure whose first raw came a while ago.

        Parameters
        ----------
        age_s
            How long ago [s]; the cadence is measured on the board's clock, as all that it is compared with.
        expected
            Detectors that are read out, as far as is known: of a few no more are to be waited for.
        asked_for
            Whether a request wants it processed on every detector.
        """
        document = await self._source.read()
        state = document.state
        visit, self._visits = self._visits, self._visits + 1
        phase = 0
        if state.visit_mode is not VisitMode.CONSTANT:
            with contextlib.suppress(PatternError):  # told below
                n_phases = parse_pattern(state.pattern).phases(self._camera, state.patterns)
                phase = phase_of(state.visit_mode, visit, n_phases)
        is_newest = info.exposure_id % 10**12 > self._newest
        if is_newest:
            self._newest = info.exposure_id % 10**12
            board = await self._board.time()
            self._cadence.note(board.now_ms / 1000 - age_s * board.rate)
        try:
            steps = rungs(state, self._camera, phase)
        except PatternError as error:
            # It was valid when it was set; the camera's definition must have changed since.
            log.error("pattern cannot be used, all detectors are processed", pattern=state.pattern, error=error.message)
            steps = [("all", self._camera.science_ids)]
        guaranteed = asked_for or is_guaranteed(info, state.guaranteed, header_flag=header.get(state.guaranteed_header))
        shedding = Shedding(level=0)
        if is_newest and not guaranteed and not info.image_type.is_calibration:
            read_out = self._camera.science_ids if expected is None else expected
            sizes = [len(detectors & read_out - excluded.keys()) for _, detectors in steps]
            shedding = self._shedder.decide(
                state.shedding, sizes, await self._load(info, header), self._cadence.seconds
            )
        choice = make_choice(
            document,
            self._camera,
            info,
            phase=phase,
            guaranteed=guaranteed,
            shedding=shedding,
            steps=steps,
            excluded=excluded,
            waits=self._waits,
        )
        if shedding.level:
            log.warning("exposure is shed", exposure_id=info.exposure_id, **choice.control)
        return Choice(**{**vars(choice), "control": {**choice.control, "visit": visit}})

    async def _load(self, info: ExposureInfo, header: Mapping[str, Any]) -> Load:
        science = info.model_copy(update={"is_guider": False})
        try:
            pipeline = choose_pipeline(science, dict(header), self._book, purpose=Purpose.SCIENCE)
            return await self._board.load_of(pipeline.pool, pipeline.name)
        except StoreError:
            raise
        except RapidError:
            return NO_LOAD  # no pipeline for such images: nothing will be dispatched
