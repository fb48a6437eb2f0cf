"""Patterns saved by name, and patterns drawn by clicking."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid.camera.store import load_camera
from rapid.patterns import PatternError, check_saved_name, list_patterns, parse_pattern, pattern_of

CAMERA = load_camera("LSSTCam")


def test_saved_patterns_are_patterns_by_name():
    named = {"mine": "R22, R33", "more": "mine | ccd_checkerboard", "most": "~more"}
    assert parse_pattern("mine - 94").detectors(CAMERA, 0, named) == {*range(90, 99), *range(144, 153)} - {94}
    assert parse_pattern("MINE").detectors(CAMERA, 0, named) == parse_pattern("R22|R33").detectors(CAMERA)
    assert parse_pattern("most").phases(CAMERA, named) == 2
    assert parse_pattern("most@1").detectors(CAMERA, 0, named) == parse_pattern(
        "~(R22|R33|ccd_checkerboard@1)"
    ).detectors(CAMERA)
    assert parse_pattern("most & R22_S11 | mine").words == {"most", "r22_s11", "mine"}


@pytest.mark.parametrize(
    ("named", "circle"),
    [
        ({"a": "a"}, "a -> a"),
        ({"a": "b", "b": "c | e2v", "c": "~a"}, "a -> b -> c -> a"),
        ({"a": "b", "b": "R22 | b@0"}, "b -> b"),
    ],
)
def test_saved_patterns_that_contain_each_other_are_refused(named, circle):
    with pytest.raises(PatternError, match=f"contain each other: {circle}"):
        parse_pattern("a").detectors(CAMERA, 0, named)


def test_a_fault_within_a_saved_pattern_is_told_with_its_name_and_text():
    named = {"mine": "R22 | other", "other": "R33 & "}
    with pytest.raises(PatternError) as caught:
        parse_pattern("all & mine").detectors(CAMERA, 0, named)
    assert "in the saved pattern other: expected" in caught.value.message
    assert (caught.value.text, caught.value.column) == ("R33 & ", 7)


def test_a_saved_name_that_is_gone_is_named():
    with pytest.raises(PatternError, match="no raft, detector or pattern 'mine'"):
        parse_pattern("mine").detectors(CAMERA)
    with pytest.raises(PatternError, match="did you mean mine_2"):
        parse_pattern("mine_1").detectors(CAMERA, 0, {"mine_2": "all"})


def test_doubling_and_long_chains_of_saved_patterns_end():
    doubling = {f"n{i}": f"n{i + 1} | n{i + 1} & n{i + 1}" for i in range(60)} | {"n60": "94"}
    assert parse_pattern("n0").detectors(CAMERA, 0, doubling) == {94}
    chain = {f"n{i}": f"n{i + 1}" for i in range(5000)} | {"n5000": "94"}
    with pytest.raises(PatternError, match="nested too deeply"):
        parse_pattern("n0").detectors(CAMERA, 0, chain)
    deep = {f"n{i}": "(" * 20 + f"n{i + 1}" + ")" * 20 for i in range(50)} | {"n50": "94"}
    assert parse_pattern("n0").detectors(CAMERA, 0, deep) == {94}
    nested = {f"n{i}": "~(1 | 2 ^ (" * 6 + f"n{i + 1}" + "))" * 6 for i in range(50)} | {"n50": "94"}
    with pytest.raises(PatternError, match="nested too deeply"):
        parse_pattern("n0").detectors(CAMERA, 0, nested)


@pytest.mark.parametrize("name", ["mine", "a", "my_pattern_2", "x" * 64, "spiral_galaxy", "all_of_it"])
def test_names_to_save_under(name):
    check_saved_name(name, CAMERA)


@pytest.mark.parametrize(
    "name",
    ["", "Mine", "2mine", "_mine", "my-pattern", "my pattern", "x" * 65, "../etc", "é", "mine\n", "all", "e2v", "cwfs",
     "five_on_a_die", "ultra_minimal", "ultraminimal", "u_l_t_r_a_minimal", "allunvignetted", "raft", "r22", "r22_s11"],
)  # fmt: skip
def test_names_that_cannot_be_saved_under(name):
    with pytest.raises(PatternError):
        check_saved_name(name, CAMERA)


def test_no_saved_name_hides_what_is_always_there():
    hiding = {known.name: "94" for known in list_patterns()} | {"r22": "94", "r22_s11": "0", "itl": "94"}
    for text in ("all", "e2v", "ITL", "R22", "R22_S11"):
        assert parse_pattern(text).detectors(CAMERA, 0, hiding) == parse_pattern(text).detectors(CAMERA)


@given(st.sets(st.sampled_from(sorted(CAMERA.by_id)), min_size=1))
@settings(max_examples=60, deadline=None)
def test_a_drawn_pattern_selects_what_was_drawn(ids):
    drawn = pattern_of(ids, CAMERA)
    assert drawn.detectors(CAMERA) == ids
    assert len(str(drawn)) < 4096


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (range(189), "all"),
        (range(90, 99), "R22"),
        ([*range(90, 99), 0, 1, 2, 5], "R22,0-2,5"),
        (range(205), "everything"),
        (range(190), "all,189"),
        ([94], "94"),
    ],
)
def test_a_drawn_pattern_is_written_in_few_words(ids, text):
    assert str(pattern_of(ids, CAMERA)) == text


@pytest.mark.parametrize(("ids", "words"), [([], "no detector is chosen"), ([0, 205], "no detector 205")])
def test_what_cannot_be_drawn(ids, words):
    with pytest.raises(PatternError, match=words):
        pattern_of(ids, CAMERA)
