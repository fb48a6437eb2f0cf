"""Put a good calib into the place of a bad one."""

from collections.abc import Iterable
from datetime import UTC, datetime

from rapid.calibs.store import calib_id_of
from rapid.errors import ConfigurationError
from rapid.results.models import CalibRecord, CalibState, Provenance
from rapid.results.store import ResultsStore


def put_in_place(
    results: ResultsStore, bad: CalibRecord, other: CalibRecord, *, author: str, reason: str
) -> CalibRecord:
    """Certify the file of another calib for the validity of a bad one, as its next version.

    Look-ups at the bad one's time then find it, what was chosen before stays reproducible, and results that use it say so
    under an id of its own. Putting it there twice is putting it there once.

    Raises
    ------
    ConfigurationError
        Raised if the two are not of the same camera, detector, kind and filter, if they are the same file, or if the
        other one is not certified.
    """
    for field in ("camera", "detector", "kind", "physical_filter"):
        here, there = getattr(bad, field), getattr(other, field)
        if here != there:
            raise ConfigurationError("replacement", f"{other.calib_id} is of {field} {there}, {bad.calib_id} of {here}")
    if other.sha256 == bad.sha256:
        raise ConfigurationError("replacement", f"{other.calib_id} is the same file as {bad.calib_id}")
    if other.state is not CalibState.CERTIFIED:
        raise ConfigurationError("replacement", f"{other.calib_id} is {other.state.value}")
    created_at = datetime.now(UTC)

    def record_of(version: int) -> CalibRecord:
        changes = {
            "calib_id": calib_id_of(bad.kind, bad.camera, bad.detector, bad.physical_filter, bad.valid_from, version),
            "valid_from": bad.valid_from,
            "valid_to": bad.valid_to,
            "version": version,
            "created_at": created_at,
            "certified_by": author,
            "state_reason": reason,
            "note": f"{other.calib_id} in place of {bad.calib_id}",
            "provenance": _with_origin(other),
        }
        return other.model_copy(update=changes)

    return results.add_calib(record_of)


def _with_origin(other: CalibRecord) -> Provenance | None:
    """Return how a copy came to be: as the original, and from it, so that its users are found if that turns out bad."""
    if other.provenance is None:
        return None
    calibs = {**other.provenance.calibs, "copy_of": other.calib_id}
    return other.provenance.model_copy(update={"calibs": calibs})


def withdraw(
    results: ResultsStore, camera: str, calib_ids: Iterable[str], *, author: str, reason: str
) -> list[CalibRecord]:
    """Take calibs out of look-ups: all that are certified. What was chosen before stays reproducible.

    Raises
    ------
    NotFoundError
        Raised if the camera has no such calib; none is withdrawn then.
    """
    records = [results.calib(camera, calib_id) for calib_id in calib_ids]
    return [
        results.set_calib_state(camera, record.calib_id, CalibState.WITHDRAWN, author=author, reason=reason)
        for record in records
        if record.state is not CalibState.WITHDRAWN
    ]


def restore(
    results: ResultsStore, camera: str, calib_ids: Iterable[str], *, author: str, reason: str
) -> list[CalibRecord]:
    """Undo that calibs were withdrawn: they are in look-ups again, and what was put in their place is not.

    What was built with them, and withdrawn for that, comes back as well; a master that was rebuilt meanwhile is the
    newer version, and stays the one that is chosen.
    """
    restored: list[CalibRecord] = []
    for calib_id in calib_ids:
        record = results.calib(camera, calib_id)
        if record.state is not CalibState.WITHDRAWN:
            continue
        for other in results.calibs(camera, kind=record.kind, detector=record.detector):
            if other.note.endswith(f" in place of {calib_id}"):
                why = f"{calib_id} is back"
                results.set_calib_state(camera, other.calib_id, CalibState.WITHDRAWN, author=author, reason=why)
        restored.append(results.set_calib_state(camera, calib_id, CalibState.CERTIFIED, author=author, reason=reason))
        for other in results.calibs(camera, detector=record.detector, state=CalibState.WITHDRAWN):
            if other.state_reason == because_of(calib_id):
                why = f"{calib_id} is back"
                restored.append(
                    results.set_calib_state(camera, other.calib_id, CalibState.CERTIFIED, author=author, reason=why)
                )
    return restored


def because_of(source: str) -> str:
    """Return the reason for which a calib is withdrawn that was built with a bad one, or from a bad exposure."""
    return f"built with {source}, which is bad"
