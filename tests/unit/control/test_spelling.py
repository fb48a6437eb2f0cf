"""RubinTV's words, and what they mean here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.camera.store import load_camera
from rapid.control.models import ControlState
from rapid.control.rules import patch_state, validate_state
from rapid.control.spelling import CONTROLS, MAX_READBACK, PREFIX, patch_of, rejection
from rapid.errors import ConfigurationError
from rapid.pipeline.models import Pipeline
from rapid.pipeline.store import default_book

CAMERA = load_camera("LSSTCam")
BOOK = default_book()


def obey(name: str, word: str, book=BOOK) -> ControlState:
    control = CONTROLS[f"{PREFIX}{name}"]
    state = patch_state(ControlState(), patch_of(control, control.from_word(word, CAMERA, book)))
    validate_state(state, CAMERA, book)
    return state


@pytest.mark.parametrize(
    ("word", "n_detectors"),
    [
        ("ALL", 189), ("RAFT_CHECKERBOARD", None), ("CCD_CHECKERBOARD", 96), ("5_ON_A_DIE", 45), ("MINIMAL", 45),
        ("ULTRA_MINIMAL", 17), ("ALL_UNVIGNETTED", None), ("5-on-a-die", 45), ("ultra-minimal", 17),
    ],
)  # fmt: skip
def test_every_chip_selection_of_the_page_means_something(word, n_detectors):
    from rapid.patterns import parse_pattern

    detectors = parse_pattern(obey("CHIP_SELECTION", word).pattern).detectors(CAMERA)
    assert detectors
    assert n_detectors in {None, len(detectors)}


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        ("CONSTANT", "constant"),
        ("ALTERNATING", "alternating"),
        ("ALTERNATING_IN_TWOS", "alternating_by_twos"),
        ("alternating_in_twos", "alternating_by_twos"),
        ("ALTERNATING_BY_TWOS", "alternating_by_twos"),
    ],
)
def test_every_selection_strategy_of_the_page_means_something(word, mode):
    state = obey("VISIT_PROCESSING_MODE", word)
    assert state.visit_mode.value == mode
    back = CONTROLS[f"{PREFIX}VISIT_PROCESSING_MODE"].to_word(state, CAMERA, BOOK)
    assert obey("VISIT_PROCESSING_MODE", back) == state


def test_a_site_that_adds_a_wavefront_pipeline_can_choose_it_from_the_page():
    tie = Pipeline.model_validate({**BOOK.pipelines[0].model_dump(), "name": "aos_tie"})
    fam = Pipeline.model_validate({**BOOK.pipelines[0].model_dump(), "name": "aos_fam_tie"})
    book = BOOK.model_copy(update={"pipelines": (*BOOK.pipelines, tie, fam)})
    for word in ("TIE", "tie", "AOS_TIE"):
        assert obey("AOS_PIPELINE", word, book).wavefront_pipeline == "aos_tie"
    assert obey("AOS_FAM_PIPELINE", "TIE", book).pipelines == {"cwfs": "aos_fam_tie"}
    control = CONTROLS[f"{PREFIX}AOS_PIPELINE"]
    assert control.shown("TIE") == "AOS_TIE"
    assert control.to_word(obey("AOS_PIPELINE", "TIE", book), CAMERA, book) == "AOS_TIE"
    with pytest.raises(ConfigurationError, match="known: "):
        obey("AOS_PIPELINE", "TIE")


@pytest.mark.parametrize(("word", "detector"), [("94", 94), ("R22_S11", 94), ("r22_s11", 94), ("0", 0)])
def test_the_witness_is_named_by_number_or_name(word, detector):
    assert obey("WITNESS_DETECTOR", word).witness_detector == detector


@pytest.mark.parametrize("word", ["", "999", "-1", "R99_S00", "94.0", "9" * 100, "٩٤"])
def test_no_witness_that_is_not_there(word):
    with pytest.raises(ConfigurationError):
        obey("WITNESS_DETECTOR", word)


@given(
    st.sampled_from(sorted(CONTROLS)),
    st.text(max_size=40) | st.binary(max_size=40).map(lambda b: b.decode(errors="replace")),
)
def test_any_word_is_obeyed_or_rejected_in_one_short_line(key, word):
    control = CONTROLS[key]
    try:
        state = obey(key.removeprefix(PREFIX), word)
    except ConfigurationError as error:
        shown = rejection(error.message)
        assert shown.startswith("REJECTED: ")
        assert len(shown) <= MAX_READBACK
        assert "\n" not in shown
    else:
        assert control.to_word(state, CAMERA, BOOK)
