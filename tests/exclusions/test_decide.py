"""What an exclusion means for an exposure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.camera.store import load_camera
from rapid.exclusions.decide import (
    Excluded,
    begin_utc,
    choose_excluded,
    merge_config,
    next_exposure_from,
    parse_bound,
    parse_targets,
)
from rapid.exclusions.models import Exclusion, ExclusionError
from rapid.pipeline.store import default_book, load_pipeline

T0 = datetime(2026, 11, 20, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
CAMERA = load_camera("LSSTCam")
AMPS = list(CAMERA.by_name["R22_S11"].amp_by_name)


def off(number, target, **changes):
    (found,) = parse_targets([target], CAMERA)
    facts = {"reason": "noisy", "author": "ann", "created_at": T0, "valid_from": T0, "camera": "LSSTCam"}
    return Exclusion(id=number, **found.model_dump(), **{**facts, **changes})


def test_detectors_and_amps_are_told_apart_with_their_reasons():
    found = choose_excluded([off(1, "R22_S11"), off(2, "R01_S00/C07", reason="dead")], CAMERA, T0)
    assert found.detectors == {94: "noisy (ann, since 2026-11-20 20:00 UTC)"}
    assert found.amps == {"R01_S00": {"C07": "dead (ann, since 2026-11-20 20:00 UTC)"}}
    assert found.among({94, 95}) == found.detectors
    assert found.among({95}) == {}


def test_only_what_holds_when_the_exposure_begins_counts():
    ended = off(1, "R22_S11", valid_to=T0 + HOUR)
    later = off(2, "R22_S12", valid_from=T0 + 2 * HOUR)
    assert set(choose_excluded([ended, later], CAMERA, T0).detectors) == {94}
    assert choose_excluded([ended, later], CAMERA, T0 + HOUR).detectors == {}
    assert set(choose_excluded([ended, later], CAMERA, T0 + 3 * HOUR).detectors) == {95}


def test_an_amp_of_a_detector_that_is_off_needs_no_mask():
    found = choose_excluded([off(1, "R22_S11/C00"), off(2, "R22_S11")], CAMERA, T0)
    assert (set(found.detectors), found.amps) == ({94}, {})


def test_a_detector_all_of_whose_amps_are_off_is_off():
    found = choose_excluded([off(i, f"R22_S11/{amp}") for i, amp in enumerate(AMPS)], CAMERA, T0)
    assert found.amps == {}
    assert found.detectors[94].startswith("every amp is off: noisy")
    all_but_one = choose_excluded([off(i, f"R22_S11/{amp}") for i, amp in enumerate(AMPS[1:])], CAMERA, T0)
    assert all_but_one.detectors == {}
    assert len(all_but_one.amps["R22_S11"]) == len(AMPS) - 1


@pytest.mark.parametrize("name", ["quicklook", "donut", "bias", "dark", "flat"])
def test_pipelines_with_signature_removal_are_told_of_excluded_amps(name):
    pipeline = load_pipeline(name, default_book())
    found = choose_excluded([off(1, "R22_S11/C00")], CAMERA, T0)
    config = found.config_for(pipeline)
    assert config == {"isr": {"excluded_amps": found.amps}}
    assert pipeline.with_config(config).config_hash != pipeline.config_hash
    assert found.facts == {"excluded_amps": found.amps}


@pytest.mark.parametrize("name", ["assemble", "build_bias"])
def test_other_pipelines_are_not(name):
    found = choose_excluded([off(1, "R22_S11/C00")], CAMERA, T0)
    assert found.config_for(load_pipeline(name, default_book())) == {}


def test_nothing_off_changes_nothing():
    nothing = choose_excluded([], CAMERA, T0)
    assert nothing == Excluded()
    assert nothing.config_for(load_pipeline("quicklook", default_book())) == {}
    assert nothing.facts == {}


def test_config_of_a_request_is_kept_beside_excluded_amps():
    assert merge_config({"isr": {"flat": False}, "quality": {"n": 1}}, {"isr": {"excluded_amps": {"a": 1}}}) == {
        "isr": {"flat": False, "excluded_amps": {"a": 1}},
        "quality": {"n": 1},
    }


def test_times_of_headers_are_tai_and_validity_is_utc():
    assert begin_utc(datetime(2026, 11, 20, 20, 0, 37), now=T0) == T0  # noqa: DTZ001 - TAI has no zone
    assert begin_utc(None, now=T0) == T0


def test_a_change_holds_from_the_next_exposure_on_also_in_a_night_that_is_played_back():
    newest = datetime(2025, 1, 1, 3, 0, 37)  # noqa: DTZ001 - TAI has no zone
    begin = next_exposure_from(newest, now=T0)
    assert begin_utc(newest, now=T0) < begin < begin_utc(newest + timedelta(seconds=1), now=T0)
    assert next_exposure_from(None, now=T0) == T0
    assert next_exposure_from(datetime(2030, 1, 1), now=T0) == T0  # noqa: DTZ001 - TAI has no zone


@pytest.mark.parametrize(
    ("text", "is_end", "expected"),
    [
        ("2026-11-20T23:15", False, "2026-11-20T23:15:00+00:00"),
        ("2026-11-20T23:15:00Z", False, "2026-11-20T23:15:00+00:00"),
        ("2026-11-20 20:15-03:00", False, "2026-11-20T23:15:00+00:00"),
        (" 20261120 ", False, "2026-11-20T12:00:00+00:00"),
        ("2026-11-20", True, "2026-11-21T12:00:00+00:00"),
    ],
)
def test_limits_are_iso_times_or_observing_days(text, is_end, expected):
    assert parse_bound(text, "valid_from", is_end=is_end).isoformat() == expected


@pytest.mark.parametrize("text", ["", "tomorrow", "20261350", "2026-02-30", "1970-01-01T00:00", "99991231", "\x00"])
def test_a_limit_that_is_no_time_is_named(text):
    with pytest.raises(ExclusionError) as caught:
        parse_bound(text, "valid_to", is_end=True)
    assert caught.value.field == "valid_to"


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_clear_error(text):
    try:
        found = parse_bound(text, "valid_from", is_end=True)
    except ExclusionError as error:
        found = error
    assert getattr(found, "tzinfo", None) is UTC or found.field == "valid_from"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["R22_S11"], ["R22_S11"]),
        (["r22_s11", 94, "94"], ["R22_S11"]),
        (["94/C00"], ["R22_S11/C00"]),
        (["r22_s11 / c07"], ["R22_S11/C07"]),
        (["R22"], [f"R22_S{i}{j}" for i in range(3) for j in range(3)]),
        (["R44_SG0"], ["R44_SG0"]),
    ],
)
def test_targets_are_detectors_amps_and_rafts(texts, expected):
    assert [target.name for target in parse_targets(texts, CAMERA)] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("R22_S33", "did you mean R22_S"),
        ("205", "numbers 0 to 204"),
        ("-1", "numbers"),
        ("R22_S11/C99", "known: C"),
        ("R22_S11/", "known: C"),
        ("R22/C00", "no detector 'R22'"),
        ("", "no detector"),
        ("../../etc/passwd", "no detector '..'"),
        ("٩٤", "no detector"),
        ("9" * 5000, "no detector"),
    ],
)
def test_what_the_camera_does_not_have_is_named(text, says):
    with pytest.raises(ExclusionError) as caught:
        parse_targets([text], CAMERA)
    assert caught.value.field == "targets"
    assert says in caught.value.message
    assert len(caught.value.message) < 300


@given(st.lists(st.text(max_size=20) | st.integers(), max_size=5))
def test_any_list_gives_targets_or_a_clear_error(texts):
    try:
        found = parse_targets(texts, CAMERA)
    except ExclusionError as error:
        found = error
    assert getattr(found, "field", "") == "targets" or {target.detector for target in found} <= set(CAMERA.by_id)


@pytest.mark.parametrize("name", ["LSSTComCam", "LATISS"])
def test_every_detector_of_every_camera_has_its_name(name):
    camera = load_camera(name)
    for detector in camera.detectors:
        assert [t.detector for t in parse_targets([detector.name], camera)] == [detector.id]
        amp = detector.amps[0].name
        assert parse_targets([f"{detector.id}/{amp}"], camera)[0].name == f"{detector.name}/{amp}"
