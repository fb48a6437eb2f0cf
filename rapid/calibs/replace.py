"""Put a good calib into the place of a bad one."""

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
