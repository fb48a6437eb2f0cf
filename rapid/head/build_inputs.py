"""Which detectors a calib can be built for: those with enough of the exposures left. The others are told with the reason.

A detector that was off, or is excluded, in its exposures is no failure: its job is not posted, and the build goes on with
the others. What is posted leaves out the same exposures again when it runs (`rapid.worker.child`), by the state of then.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rapid.camera.models import Camera, Purpose
from rapid.exclusions.bad_exposures import BadExposureStore
from rapid.exclusions.decide import begin_utc, choose_excluded, newest_begin
from rapid.exclusions.store import ExclusionStore
from rapid.requests.models import PROMPT, Combine
from rapid.results.models import DetectorResult, DetectorState, ExposureSummary
from rapid.results.store import ResultsStore

NOTHING_USABLE = "no usable input"
"""Begin of the reason for which a detector has no calib, by which people and scripts know it."""


@dataclass(frozen=True)
class BuildInputs:
    """What a build of some exposures can be posted with.

    Attributes
    ----------
    raws
        Raw of the newest exposure, by detector: those with enough exposures to build from.
    unusable
        Why there is no calib of the other detectors.
    used
        Exposures that are left of those that were asked for, by detector.
    """

    raws: dict[int, str]
    unusable: dict[int, str]
    used: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def is_of_these(self, built: DetectorResult) -> bool:
        """Whether a result of such a build is of the exposures that it would be of now."""
        return tuple(built.provenance.inputs) == self.used.get(built.detector)


def find_build_inputs(
    results: ResultsStore,
    camera: Camera,
    kind: str,
    members: tuple[int, ...],
    *,
    detectors: Collection[int] | None = None,
    least: int | None = None,
) -> BuildInputs:
    """Return the detectors that a calib can be built for.

    Parameters
    ----------
    kind
        Kind of calib.
    members
        Exposures to build from, in order; all have been processed.
    detectors
        Detectors to build for; None for all that were read out.
    least
        Fewest exposures left; those that the kind needs if left out.
    """
    newest = results.results(members[-1], camera=camera.name)
    raws = _raws_of(newest)
    off = _left_out(results, camera, members)
    mentioned = raws.keys() | off.keys()
    wanted = {
        detector
        for detector in (mentioned if detectors is None else mentioned & set(detectors))
        if detector in camera.by_id and camera.by_id[detector].purpose is not Purpose.GUIDER
    }
    needed = Combine(f"build_{kind}").least if least is None else least
    unusable = {
        detector: why
        for detector in sorted(wanted)
        if (why := why_unusable(members, off.get(detector, {}), needed=needed, has_newest=detector in raws))
    }
    good = sorted(wanted - unusable.keys())
    used = {detector: tuple(one for one in members if one not in off.get(detector, {})) for detector in good}
    return BuildInputs({detector: raws[detector] for detector in good}, unusable, used)


def why_unusable(members: tuple[int, ...], off: Mapping[int, str], *, needed: int, has_newest: bool) -> str | None:
    """Return why no calib can be built of a detector's exposures, or None.

    Parameters
    ----------
    off
        Exposures that are left out, with the reason.
    needed
        Fewest exposures.
    has_newest
        Whether the newest one has a result: its raw stands for the calib.

    Examples
    --------
    >>> why_unusable((1, 2), {1: "off", 2: "off"}, needed=2, has_newest=False)
    'no usable input: off'
    >>> why_unusable((1, 2, 3), {1: "light", 3: "light"}, needed=2, has_newest=True)
    'no usable input: 1 of 3 exposures is left, 2 are needed; 1, 3: light'
    """
    reasons: dict[str, list[int]] = {}
    for exposure in members:
        if exposure in off:
            reasons.setdefault(off[exposure], []).append(exposure)
    n_left = len(members) - sum(len(places) for places in reasons.values())
    if n_left == 0:
        return f"{NOTHING_USABLE}: {'; '.join(reasons)}"[:300]
    told = "; ".join(f"{', '.join(map(str, places[:5]))}: {why}" for why, places in reasons.items())
    if n_left < needed:
        left = f"{n_left} of {len(members)} exposures {'is' if n_left == 1 else 'are'} left, {needed} are needed"
        return f"{NOTHING_USABLE}: {left}; {told}"[:300]
    if not has_newest:
        return f"{NOTHING_USABLE} in the newest exposure; {told or members[-1]}; build it from the others"[:300]
    return None


def _raws_of(newest: list[DetectorResult]) -> dict[int, str]:
    return {result.detector: result.provenance.raw for result in newest if not result.pipeline.startswith("build_")}


def _left_out(results: ResultsStore, camera: Camera, members: tuple[int, ...]) -> dict[int, dict[int, str]]:
    """Return, by detector, the exposures that nothing of it is built from, with the reason."""
    off: dict[int, dict[int, str]] = {}
    exclusions, bad = ExclusionStore(results.engine), BadExposureStore(results.engine)
    for exposure in members:
        summaries = [
            one for one in results.summary_versions(camera.name, exposure) if not one.pipeline.startswith("build_")
        ]
        why_not = _without_result(summaries)
        begins = [begin for one in summaries if (begin := newest_begin(one.info)) is not None]
        if begins:
            begin = begin_utc(begins[0], now=datetime.now(UTC))
            why_not |= choose_excluded(exclusions.active(camera.name, begin), camera, begin).detectors
        for one in bad.listed(camera.name, exposure=exposure, limit=len(camera.detectors) + 1):
            why_not |= dict.fromkeys(camera.by_id if one.detector is None else (one.detector,), one.why)
        # Of the others nobody expected anything: there is nothing to tell of them.
        expected = {detector for one in summaries for detector in one.detectors}
        for detector in sorted(why_not.keys() & expected):
            off.setdefault(detector, {})[exposure] = why_not[detector]
    return off


def _without_result(summaries: list[ExposureSummary]) -> dict[int, str]:
    """Return the detectors that have no result in any summary of an exposure, and why."""
    finished: set[int] = set()
    without: dict[int, str] = {}
    for summary in summaries:
        for detector, status in summary.detectors.items():
            if status.state is DetectorState.FINISHED:
                finished.add(detector)
            elif status.state.is_without_result and summary.run == PROMPT:
                # Of the night's own alone: what a cancelled request left undone is settled as excluded as well.
                is_off = status.state is DetectorState.EXCLUDED  # such a reason says itself what it is
                told = (status.reason,) if is_off and status.reason else (status.state.value, status.reason)
                without.setdefault(detector, ": ".join(part for part in told if part))
    return {detector: why for detector, why in without.items() if detector not in finished}
