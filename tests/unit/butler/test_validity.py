"""Who is the choice when: as look-ups choose, told as spans."""

from datetime import UTC, datetime

import pytest

from rapid.butler.validity import choose_spans
from rapid.results.models import CalibRecord


def calib(name: str, begin: int, end: int | None = None, version: int = 1) -> CalibRecord:
    return CalibRecord(
        calib_id=name, camera="LSSTCam", detector=94, kind="bias", valid_from=_day(begin),
        valid_to=None if end is None else _day(end), version=version, path="x", sha256="0", created_at=datetime.now(UTC),
    )  # fmt: skip


def _day(day: int) -> datetime:
    return datetime(2026, 11, day)  # noqa: DTZ001 - TAI has no zone


@pytest.mark.parametrize(
    ("calibs", "spans"),
    [
        ([], []),
        ([calib("a", 1)], [("a", 1, None)]),
        ([calib("a", 1), calib("b", 5)], [("a", 1, 5), ("b", 5, None)]),
        ([calib("a", 1), calib("b", 5, 7)], [("a", 1, 5), ("b", 5, 7), ("a", 7, None)]),
        ([calib("a", 1, version=1), calib("c", 1, version=2)], [("c", 1, None)]),
        ([calib("a", 1), calib("c", 1, 4, version=2)], [("c", 1, 4), ("a", 4, None)]),
        ([calib("a", 1, 3), calib("b", 5, 7)], [("a", 1, 3), ("b", 5, 7)]),
        ([calib("a", 1, 9), calib("b", 2, 9), calib("c", 3, 4)], [("a", 1, 2), ("b", 2, 3), ("c", 3, 4), ("b", 4, 9)]),
        ([calib("a", 5, 5)], []),
    ],
    ids=[
        "none", "one", "a later one ends it", "a later one interrupts it", "the newest version", "a version that ends",
        "a gap", "one within another", "an empty validity",
    ],
)  # fmt: skip
def test_the_one_whose_validity_began_last_is_the_choice(calibs, spans):
    for given in (calibs, calibs[::-1]):
        found = [(s.calib_id, s.begin.day, None if s.end is None else s.end.day) for s in choose_spans(given)]
        assert found == spans
