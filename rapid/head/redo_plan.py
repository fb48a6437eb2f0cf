"""What has to be done again because a calib or an exposure is bad, and what is settled before it begins.

Blocking, on the results store; `rapid.head.redoing` runs it in a thread. Doing it twice is doing it once: a head that takes
over finds what is still to do by what the stored results say they used.
"""

from dataclasses import dataclass, field
from datetime import datetime

from rapid.calibs.replace import because_of, put_in_place
from rapid.calibs.store import PER_FILTER
from rapid.camera.models import Camera
from rapid.dispatch.models import BatchKey
from rapid.errors import RapidError
from rapid.exclusions.bad_exposures import BadExposureStore
from rapid.head.building import VERIFY_SUFFIX
from rapid.provenance.models import Affected, AffectedBatch, AffectedError
from rapid.provenance.store import ProvenanceStore
from rapid.requests.selection import AffectedExposures
from rapid.results.models import CalibRecord, CalibState, DetectorResult, ExposureSummary
from rapid.results.store import ResultsStore


class NotBadError(RapidError):
    """Nothing has to be done again: what was named is not known to be bad."""

    code = "not_bad"


@dataclass
class RedoTarget:
    """One batch of which some detectors are done again.

    Attributes
    ----------
    wanted
        Detectors to do again.
    done, failed
        Detectors whose new result is stored; those that have none, with the reason.
    version
        Of the summary before.
    n_begun
        How often its jobs were put on the board.
    is_stale
        Whether something happened since it was looked at.
    """

    batch: AffectedBatch
    key: BatchKey
    wanted: set[int]
    done: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)
    version: int = 0
    n_begun: int = 0
    is_stale: bool = True
    has_ended: bool = False

    @property
    def is_under_way(self) -> bool:
        """Whether its jobs are on the board."""
        return self.n_begun > 0 and not self.has_ended


@dataclass
class RedoPlan:
    """All that is to be done again."""

    affected: Affected
    targets: list[RedoTarget]
    not_redone: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredBatch:
    """What is stored of a batch."""

    results: dict[int, DetectorResult]
    summary: ExposureSummary | None

    @property
    def begin(self) -> datetime | None:
        """When the exposure began, TAI."""
        text = self.summary.info.get("begin") if self.summary else None
        try:
            return datetime.fromisoformat(text) if isinstance(text, str) else None
        except ValueError:
            return None

    @property
    def physical_filter(self) -> str | None:
        """The filter of the exposure."""
        found = self.summary.info.get("physical_filter") if self.summary else None
        return found if isinstance(found, str) else None


def prepare(results: ResultsStore, camera: Camera, what: AffectedExposures, *, author: str) -> RedoPlan:
    """Withdraw what is bad and what was built with it, and return what is to be done again.

    Raises
    ------
    AffectedError
        Raised, naming the field, for a calib or replacement that is not there.
    NotBadError
        Raised if the calib is still certified and no replacement is named, or if the exposure is not excluded.
    ConfigurationError
        Raised for a replacement that does not fit.
    StoreError
        Raised if the database does not answer.
    """
    store = ProvenanceStore(results.engine)
    if what.calib is not None:
        affected = store.affected(camera.name, calib=what.calib)
        _replace(results, camera, store, affected, what.replacement, author=author)
    else:
        exposure = what.exposure or 0
        excluded = BadExposureStore(results.engine).listed(camera.name, exposure=exposure)
        if not excluded:
            raise NotBadError(
                f"exposure {exposure} is not excluded: exclude it first", field="select.affected.exposure"
            )
        whole = any(one.detector is None for one in excluded)
        detectors = None if whole else {one.detector for one in excluded if one.detector is not None}
        affected = store.affected(camera.name, exposure=exposure, detectors=detectors)
    for built in affected.built:
        if built.state == CalibState.CERTIFIED.value:
            reason = because_of(built.because_of[0])
            results.set_calib_state(camera.name, built.calib_id, CalibState.WITHDRAWN, author=author, reason=reason)
    plan = RedoPlan(affected, [])
    for batch in affected.batches:
        key = BatchKey(run=batch.run, exposure_id=batch.exposure, pipeline=batch.pipeline)
        if batch.run.endswith(VERIFY_SUFFIX):
            # It checked the bad calib itself; the one in its place gets a check of its own.
            for detector in batch.detectors:
                plan.not_redone[key.job_id(detector)] = "it was the check of a calib that is withdrawn"
            continue
        plan.targets.append(RedoTarget(batch, key, set(batch.detectors)))
    return plan


def _replace(
    results: ResultsStore,
    camera: Camera,
    store: ProvenanceStore,
    affected: Affected,
    replacement: str | None,
    *,
    author: str,
) -> None:
    bad = {}
    for calib_id in affected.calibs:
        try:
            bad[calib_id] = results.calib(camera.name, calib_id)
        except RapidError as error:
            if error.code != "not_found":
                raise
    if replacement is None:
        certified = [calib_id for calib_id, record in bad.items() if record.state is CalibState.CERTIFIED]
        if certified:
            raise NotBadError(
                f"{certified[0]} is still certified: withdraw it first, or name a replacement",
                field="select.affected.calib",
            )
        return
    try:
        others = [results.calib(camera.name, one) for one in store.matching_calibs(camera.name, replacement)]
    except AffectedError as error:
        raise AffectedError("select.affected.replacement", error.reason) from error
    chosen: list[tuple[CalibRecord, CalibRecord]] = []
    for record in bad.values():
        fitting = [
            one
            for one in others
            if (one.detector, one.kind, one.physical_filter) == (record.detector, record.kind, record.physical_filter)
            and one.calib_id not in bad
        ]
        if len(fitting) != 1:
            what = "no calib" if not fitting else f"{len(fitting)} calibs"
            raise AffectedError(
                "select.affected.replacement",
                f"{replacement[:200]!r} means {what} to put in the place of {record.calib_id}",
            )
        chosen.append((record, fitting[0]))
    for record, other in chosen:  # all of them fit: none is replaced before that is known
        put_in_place(results, record, other, author=author, reason=f"in place of {record.calib_id}")
        reason = f"replaced by {other.calib_id}"
        if record.state is CalibState.CERTIFIED:
            results.set_calib_state(camera.name, record.calib_id, CalibState.WITHDRAWN, author=author, reason=reason)


def read_stored(results: ResultsStore, camera: Camera, key: BatchKey) -> StoredBatch:
    """Return what is stored of a batch."""
    found = results.results(key.exposure_id, camera=camera.name, run=key.run, pipeline=key.pipeline)
    summary = results.latest_summary(camera.name, key.exposure_id, pipeline=key.pipeline, run=key.run)
    return StoredBatch({result.detector: result for result in found}, summary)


def without_replacement(
    results: ResultsStore, camera: Camera, target: RedoTarget, stored: StoredBatch, bad: frozenset[str]
) -> dict[int, str]:
    """Return those detectors of a batch for which look-up has nothing in the place of a bad calib, with the reason."""
    found: dict[int, str] = {}
    if stored.begin is None:
        return found
    for detector in target.wanted & stored.results.keys():
        for kind, calib_id in stored.results[detector].provenance.calibs.items():
            if calib_id not in bad:
                continue
            wanted = (stored.physical_filter or "") if kind in PER_FILTER else ""
            others = results.calibs(
                camera.name, kind=kind, detector=detector, physical_filter=wanted, at=stored.begin, limit=1
            )
            if not others:
                found[detector] = f"there is no certified {kind} in the place of {calib_id}"
                break
    return found


def calibs_in_place(results: ResultsStore, camera: Camera, affected: Affected) -> dict[str, str]:
    """Return what look-up gives now in the place of each calib that was built with what is bad."""
    found: dict[str, str] = {}
    for built in affected.built:
        try:
            record = results.calib(camera.name, built.calib_id)
        except RapidError as error:
            if error.code != "not_found":
                raise
            continue
        now = results.calibs(
            camera.name,
            kind=record.kind,
            detector=record.detector,
            physical_filter=record.physical_filter or "",
            at=record.valid_from,
            limit=1,
        )
        found[built.calib_id] = now[0].calib_id if now else "nothing"
    return found
