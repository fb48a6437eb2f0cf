"""Refuse questions about what cannot be: an empty answer would look as if there were none of it yet.

Each check names the field of the query that is wrong, and what would have been right.
"""

from collections.abc import Iterable
from datetime import date

from rapid.access import BadRequestError
from rapid.camera.models import Camera
from rapid.results.store import ResultsStore

CALIB_KINDS = ("bias", "dark", "flat", "ptc", "linearity", "crosstalk", "defects")
"""Kinds that are built here. A registry may hold others, which somebody brought."""


def check_detector(camera: Camera, detector: int | None) -> None:
    """Raise BadRequestError if the camera has no such detector; None is any."""
    if detector is not None and detector not in camera.by_id:
        numbers = sorted(camera.by_id)
        raise BadRequestError(
            "detector",
            f"{camera.name} has no detector {detector}; it has {len(numbers)}, {numbers[0]} to {numbers[-1]}",
        )


def check_kind(results: ResultsStore, camera: Camera, kind: str | None) -> None:
    """Raise BadRequestError if there is no such kind of calib, neither built here nor in the registry; None is any."""
    if kind is None or kind in CALIB_KINDS:
        return
    if not results.calibs(camera.name, kind=kind, state=None, limit=1):
        raise BadRequestError("kind", f"{kind!r} is no kind of calib; there are {', '.join(CALIB_KINDS)}")


def check_filter(results: ResultsStore, camera: Camera, physical_filter: str | None) -> None:
    """Raise BadRequestError if neither camera nor registry knows a filter; None is any, an empty one is of calibs without."""
    if not physical_filter or physical_filter in camera.filters:
        return
    if not results.calibs(camera.name, physical_filter=physical_filter, state=None, limit=1):
        raise BadRequestError(
            "physical_filter", f"{camera.name} has no filter {physical_filter!r}; it has {_listed(camera.filters)}"
        )


def check_day(field: str, day_obs: int | None) -> None:
    """Raise BadRequestError if a number is no day of a calendar; None is any."""
    if day_obs is None:
        return
    try:
        date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100)
    except ValueError as error:
        raise BadRequestError(field, f"{day_obs} is no observing day (YYYYMMDD)") from error


def check_days(first_day: int, last_day: int) -> None:
    """Raise BadRequestError if the first day is after the last one."""
    if first_day > last_day:
        raise BadRequestError("first_day", f"{first_day} is after last_day, {last_day}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
