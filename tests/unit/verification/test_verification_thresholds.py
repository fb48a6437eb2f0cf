"""Limits are dated data: the most particular entry in force counts, and a mistake is an error that names it."""

from datetime import date

import pytest

from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError
from rapid.verification.models import Scope, Subject
from rapid.verification.thresholds import Threshold, Thresholds, day_of, load_thresholds

CAMERA = load_camera("LSSTCam")
E2V, ITL = CAMERA.by_name["R22_S11"], CAMERA.by_name["R01_S00"]
AMP = E2V.amp_by_name["C07"]


def entry(high: float, **changes) -> Threshold:
    facts = {"test": "NOISE", "kinds": ["bias"], "error": {"high": high}, "reason": "x", "valid_from": "2026-01-01"}
    return Threshold.model_validate(facts | changes)


def chosen(*entries: Threshold, at: date = date(2026, 6, 1), detector=E2V, amp=AMP) -> float | None:
    found = Thresholds(entries).of(
        kind="bias", subject=Subject.EXPOSURE, scope=Scope.AMP, camera="LSSTCam", at=at, detector=detector, amp=amp
    )
    return found["NOISE"].error.high if found else None


@pytest.mark.parametrize(
    ("entries", "high"),
    [
        pytest.param([entry(1), entry(2, valid_from="2026-05-01")], 2, id="the newer one"),
        pytest.param([entry(1), entry(2, valid_from="2026-07-01")], 1, id="not yet in force"),
        pytest.param([entry(1), entry(2, valid_from="2026-05-01", valid_to="2026-05-20")], 1, id="in force no longer"),
        pytest.param([entry(1, valid_from="2027-01-01")], None, id="none in force"),
        pytest.param([entry(1, amps=["C07"]), entry(2, valid_from="2026-05-01")], 1, id="the amp's own, though older"),
        pytest.param([entry(1, detectors=["R22_S11"]), entry(2, cameras=["LSSTCam"])], 1, id="detector before camera"),
        pytest.param([entry(1), entry(2, detectors=["R22_S12"])], 1, id="another detector's is passed over"),
        pytest.param([entry(1), entry(2, physical_types=["E2V"])], 2, id="the kind of CCD"),
        pytest.param([entry(1), entry(2)], 2, id="of equals the later file"),
        pytest.param([entry(1), entry(2, subjects=["master"])], 1, id="for masters only"),
    ],
)
def test_the_most_particular_entry_in_force_counts(entries, high):
    assert chosen(*entries) == high


def test_sensors_of_itl_are_itl_by_any_name():
    assert chosen(entry(1), entry(2, physical_types=["ITL"]), detector=ITL) == 2
    corner = CAMERA.by_name["R00_SW0"]
    assert chosen(entry(1), entry(2, physical_types=["ITL"]), detector=corner) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": None}, "needs a band"),
        ({"error": {}}, "needs low, high"),
        ({"error": {"low": 2, "high": 1}}, "above high"),
        ({"warn": {"high": 3}, "error": {"high": 2}}, "outside of error"),
        ({"kinds": ["sky"]}, "none of"),
        ({"valid_to": "2025-01-01"}, "not after"),
        ({"scope": "detector", "amps": ["C00"]}, "has none"),
        ({"reason": ""}, "at least 1"),
        ({"limit": 3}, "Extra"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        entry(1, **change)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("thresholds: [", "thresholds"),
        ("limits: []", "thresholds"),
        ("thresholds:\n  - {test: NOISE}\n", "thresholds.0.kinds"),
        (
            "thresholds:\n  - {test: SMELL, kinds: [bias], error: {high: 1}, reason: x, valid_from: 2026-01-01}\n",
            "test",
        ),
    ],
    ids=["no YAML", "another key", "half an entry", "a test that nobody measures"],
)
def test_a_mistake_in_a_site_s_file_is_named(tmp_path, text, field):
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_thresholds(path)
    assert field in caught.value.message


def test_a_site_s_file_is_read_again_when_it_changes(tmp_path):
    path, text = (
        tmp_path / "limits.yaml",
        "thresholds:\n  - {test: NOISE, kinds: [bias], error: {high: %s}, reason: x, valid_from: 2026-01-01}\n",
    )
    path.write_text(text % 0.5)
    first = load_thresholds(path)
    path.write_text(text % 0.25)
    second = load_thresholds(path)
    assert first.digest != second.digest
    assert second.entries[-1].error.high == 0.25


def test_every_entry_of_the_package_says_why_and_all_kinds_have_some():
    found = load_thresholds()
    assert all(len(one.reason) > 20 for one in found.entries)
    assert {kind for one in found.entries for kind in one.kinds} == {
        "bias", "dark", "flat", "ptc", "linearity", "crosstalk", "defects"
    }  # fmt: skip


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_thresholds(tmp_path / "none.yaml")


def test_the_observing_day_is_a_date():
    assert day_of(20261120) == date(2026, 11, 20)
