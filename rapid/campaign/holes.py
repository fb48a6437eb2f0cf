"""Say which exposures and detectors of a night have no result under a run, and why.

What a detector ended with is in the newest summary; what no summary tells is told by the raws, by dead letters and by what was
set aside.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from rapid.camera.models import Camera, Purpose
from rapid.campaign.plan import Candidate, Listing, choose_exposures, night_of
from rapid.requests.archive import RequestArchive
from rapid.requests.models import PROMPT
from rapid.results.models import DetectorState, ExposureSummary
from rapid.results.store import ResultsStore

NO_SUMMARY = "nothing was made of it: its raw is there"
GONE = "its raw is gone"
NOT_EXPECTED = "its raw is there, and no pipeline expected it"


class Hole(BaseModel):
    """Detectors of one exposure without a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exposure_id: int
    pipeline: str = Field(default="", description="Empty if no pipeline was begun.")
    image_type: str = ""
    n_expected: int = Field(description="Detectors that should have a result.")
    reasons: dict[str, tuple[str, ...]] = Field(description="Names of detectors, by why they have none.")

    @property
    def n_missing(self) -> int:
        """How many detectors have none."""
        return sum(len(names) for names in self.reasons.values())


class HolesReport(BaseModel):
    """What of a night has no result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str
    day_obs: int
    run: str
    n_exposures: int = Field(description="Exposures with a raw, or anything stored; of a campaign, those it is of.")
    n_raws: int | None = Field(description="Raws that are there; None if they could not be looked at.")
    n_results: int
    n_missing: int = Field(description="Detectors without a result that are not switched off.")
    n_excluded: int = Field(description="Detectors that are switched off.")
    holes: tuple[Hole, ...] = Field(default=(), description="By exposure; what is switched off is left out.")


def find_holes(
    day_obs: int, *, results: ResultsStore, camera: Camera, listing: Listing | None, run: str = PROMPT
) -> HolesReport:
    """Return what of a night has no result under a run.

    Raises
    ------
    StoreError
        Raised if a store does not answer, or the raws' folder is away.
    """
    candidates = _candidates(day_obs, results, camera, listing, run)
    summaries: dict[int, list[ExposureSummary]] = {}
    for summary in results.summaries(camera.name, day_obs=day_obs, limit=100_000, run=run):
        summaries.setdefault(summary.exposure, []).append(summary)
    quarantined = {
        (record.exposure, record.detector): record.reason
        for record in results.quarantined(camera.name, limit=10_000)
        if record.exposure is not None and record.detector is not None
    }
    holes: list[Hole] = []
    n_results = n_excluded = n_raws = 0
    for candidate in sorted(candidates, key=lambda one: one.exposure_id):
        exposure_id = candidate.exposure_id
        finished = results.finished_detectors(camera.name, exposure_id, run=run)
        n_results += sum(len(detectors) for detectors in finished.values())
        n_raws += len(candidate.raws.raws) + len(candidate.raws.guiders)
        failed = {row["detector"]: str(row["message"]) for row in results.failures(camera.name, exposure=exposure_id)}
        told: set[int] = set()
        for summary in summaries.get(exposure_id, []):
            told |= summary.detectors.keys()
            reasons, off = _of_summary(summary, finished.get(summary.pipeline, frozenset()), failed)
            n_excluded += off
            if reasons:
                holes.append(_hole(candidate, camera, summary.pipeline, len(summary.detectors), reasons))
        told |= {detector for detectors in finished.values() for detector in detectors}
        rest = _untold(candidate, camera, told, has_summary=bool(summaries.get(exposure_id)), run=run)
        if run != PROMPT:
            rest |= dict.fromkeys(candidate.gone - told, GONE)
        rest |= {
            detector: f"quarantined: {why}"
            for (of, detector), why in quarantined.items()
            if of == exposure_id and detector not in told
        }
        if rest:
            holes.append(_hole(candidate, camera, "", len(rest), rest))
    return HolesReport(
        camera=camera.name,
        day_obs=day_obs,
        run=run,
        n_exposures=len(candidates),
        n_raws=n_raws if listing is not None else None,
        n_results=n_results,
        n_missing=sum(hole.n_missing for hole in holes),
        n_excluded=n_excluded,
        holes=tuple(holes),
    )


def _candidates(
    day_obs: int, results: ResultsStore, camera: Camera, listing: Listing | None, run: str
) -> list[Candidate]:
    """Return the exposures of the night that the run is of."""
    record = RequestArchive(results.engine).by_run(camera.name, run) if run != PROMPT else None
    campaign = record.spec.select.campaign if record is not None and record.spec is not None else None
    if campaign is None:
        return night_of(day_obs, results=results, camera=camera.name, listing=listing, run=run)
    chosen = choose_exposures(campaign, results=results, camera=camera.name, listing=listing)
    return [one for one in chosen if one.day_obs == day_obs]


def _of_summary(
    summary: ExposureSummary, finished: frozenset[int], failed: Mapping[int, str]
) -> tuple[dict[int, str], int]:
    """Return why detectors of a batch have no result, and how many are switched off."""
    reasons: dict[int, str] = {}
    n_off = 0
    for detector, status in summary.detectors.items():
        if status.state is DetectorState.FINISHED or detector in finished:
            continue
        if status.state is DetectorState.EXCLUDED:
            n_off += 1
            continue
        why = status.reason or (failed.get(detector) if status.state is DetectorState.FAILED else None)
        reasons[detector] = f"{status.state.value}: {why}" if why else status.state.value
    return reasons, n_off


def _untold(candidate: Candidate, camera: Camera, told: set[int], *, has_summary: bool, run: str) -> dict[int, str]:
    """Return the detectors with a raw of which no summary tells anything."""
    there = set(candidate.raws.raws)
    if run == PROMPT:
        there |= candidate.raws.guiders.keys()
    elif has_summary:
        # A run of a request has the detectors that were asked for.
        there = set()
    science = {detector for detector in there if camera.by_id[detector].purpose is Purpose.SCIENCE}
    rest = dict.fromkeys(there - told, NO_SUMMARY)
    if has_summary:
        rest = {detector: NOT_EXPECTED for detector in rest if detector in science}
    return rest


def _hole(candidate: Candidate, camera: Camera, pipeline: str, n_expected: int, reasons: Mapping[int, str]) -> Hole:
    by_reason: dict[str, list[str]] = {}
    for detector, why in sorted(reasons.items()):
        known = camera.by_id.get(detector)
        by_reason.setdefault(why, []).append(known.name if known is not None else str(detector))
    return Hole(
        exposure_id=candidate.exposure_id,
        pipeline=pipeline,
        image_type=candidate.image_type,
        n_expected=n_expected,
        reasons={why: tuple(names) for why, names in by_reason.items()},
    )
