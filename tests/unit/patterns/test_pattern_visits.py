"""The phase of each exposure, and exposures that no pattern thins out."""

import pytest
from pydantic import BaseModel, ValidationError

from rapid.exposure.models import ExposureInfo, ImageType
from rapid.patterns import HeaderFlag, VisitMode, is_guaranteed, phase_of

INFO = ExposureInfo(
    camera="LSSTCam", exposure_id=2026112100017, obs_id="MC_O_20261121_000017", controller="O", day_obs=20261121,
    seq_num=17, detector=94, detector_name="R22_S11", image_type=ImageType.SCIENCE,
)  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "n_phases", "phases"),
    [
        (VisitMode.CONSTANT, 2, [0, 0, 0, 0, 0, 0, 0]),
        (VisitMode.ALTERNATING, 2, [0, 1, 0, 1, 0, 1, 0]),
        (VisitMode.ALTERNATING_BY_TWOS, 2, [0, 0, 1, 1, 0, 0, 1]),
        (VisitMode.ALTERNATING, 3, [0, 1, 2, 0, 1, 2, 0]),
        (VisitMode.ALTERNATING_BY_TWOS, 3, [0, 0, 1, 1, 2, 2, 0]),
        (VisitMode.ALTERNATING, 1, [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_phase_of_each_exposure(mode, n_phases, phases):
    assert [phase_of(mode, counter, n_phases) for counter in range(7)] == phases


def test_two_phases_unless_said_otherwise():
    assert [phase_of(VisitMode.ALTERNATING, counter) for counter in (0, 1, 2, 10**12 + 1)] == [0, 1, 0, 1]


@pytest.mark.parametrize(("counter", "n_phases"), [(-1, 2), (0, 0)])
def test_impossible_counts_are_refused(counter, n_phases):
    with pytest.raises(ValueError, match="must not be"):
        phase_of(VisitMode.ALTERNATING, counter, n_phases)


@pytest.mark.parametrize(
    ("spelling", "mode"),
    [
        ("constant", VisitMode.CONSTANT), ("CONSTANT", VisitMode.CONSTANT), ("Alternating", VisitMode.ALTERNATING),
        ("alternating-phase", VisitMode.ALTERNATING), ("ALTERNATING_BY_TWOS", VisitMode.ALTERNATING_BY_TWOS),
        ("ALTERNATING_IN_TWOS", VisitMode.ALTERNATING_BY_TWOS), ("alternating-in-twos", VisitMode.ALTERNATING_BY_TWOS),
        (" alternating by twos ", VisitMode.ALTERNATING_BY_TWOS),
    ],
)  # fmt: skip
def test_spellings_of_the_modes(spelling, mode):
    class State(BaseModel):
        visit_mode: VisitMode

    assert VisitMode(spelling) is mode
    assert State.model_validate({"visit_mode": spelling}).visit_mode is mode
    assert State(visit_mode=mode).model_dump(mode="json") == {"visit_mode": mode.value}


@pytest.mark.parametrize("spelling", ["", "sometimes", "alternating_by_threes", 1, None])
def test_other_modes_are_refused(spelling):
    class State(BaseModel):
        visit_mode: VisitMode

    with pytest.raises(ValueError, match="is not a valid VisitMode"):
        VisitMode(spelling)
    with pytest.raises(ValidationError, match="visit_mode"):
        State.model_validate({"visit_mode": spelling})


def test_guaranteed_by_id():
    assert is_guaranteed(INFO, {2026112100017})
    assert not is_guaranteed(INFO, {2026112100018})
    assert not is_guaranteed(INFO, frozenset())


@pytest.mark.parametrize("value", [True, 1, "T", "true", " Yes ", "on", "1", 2.0])
def test_guaranteed_by_header(value):
    assert is_guaranteed(INFO, frozenset(), header_flag=value)


@pytest.mark.parametrize("value", [None, False, 0, "", "F", "false", "no", "0", "maybe", float("nan"), object()])
def test_not_guaranteed_by_header(value):
    assert not is_guaranteed(INFO, frozenset(), header_flag=value)


@pytest.mark.parametrize(
    ("flag", "header", "is_set"),
    [
        (HeaderFlag(), {"RAPIDALL": True}, True),
        (HeaderFlag(), {"RAPIDALL": False}, False),
        (HeaderFlag(), {}, False),
        (HeaderFlag(key="PROGRAM", value="BLOCK-T1"), {"PROGRAM": "block-t1 "}, True),
        (HeaderFlag(key="PROGRAM", value="BLOCK-T1"), {"PROGRAM": "BLOCK-T2"}, False),
        (HeaderFlag(key="PROGRAM", value="BLOCK-T1"), {}, False),
        (HeaderFlag(key="LEVEL", value="3"), {"LEVEL": 3}, True),
        (HeaderFlag(key="ALLCCD", value="T"), {"ALLCCD": True}, True),
        (HeaderFlag(key="ALLCCD", value="F"), {"ALLCCD": False}, True),
    ],
)
def test_the_header_flag_is_a_matter_of_configuration(flag, header, is_set):
    assert flag.is_set(header) is is_set
    assert is_guaranteed(INFO, frozenset(), flag.is_set(header)) is is_set


@pytest.mark.parametrize("key", ["", "too_long_a_key", "with space", "lower"])
def test_a_key_that_no_header_has_is_refused(key):
    with pytest.raises(ValidationError, match="key"):
        HeaderFlag(key=key)
