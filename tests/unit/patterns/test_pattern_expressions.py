"""What can be written, what it means, and what is refused where."""

import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError, Retry
from rapid.patterns import PatternError, list_patterns, parse_pattern

CAMERA = load_camera("LSSTCam")
COMCAM = load_camera("LSSTComCam")


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("R22 | e2v & itl", "R22 | (e2v & itl)"),
        ("e2v & itl | R22", "(e2v & itl) | R22"),
        ("R22 ^ e2v & itl", "R22 ^ (e2v & itl)"),
        ("R22 | e2v ^ itl", "R22 | (e2v ^ itl)"),
        ("all & e2v - R22", "all & (e2v - R22)"),
        ("all - e2v - R22", "(all - e2v) - R22"),
        ("~e2v - R10", "(~e2v) - R10"),
        ("~e2v & itl", "(~e2v) & itl"),
        ("~R22,R33", "~(R22 | R33)"),
        ("all - R22,R33", "all - (R22 | R33)"),
        ("all - 5 - 9", "all - 5,9"),
        ("(5) - 9", "5"),
        ("1,2,3 & e2v | 94", "((1 | 2 | 3) & e2v) | 94"),
        ("~ccd_checkerboard@1", "~(ccd_checkerboard@1)"),
        ("ccd_checkerboard[1],R22 & e2v", "(ccd_checkerboard[1] | R22) & e2v"),
    ],
)
def test_what_binds_tighter(written, means):
    assert parse_pattern(written).detectors(CAMERA) == parse_pattern(means).detectors(CAMERA)


def test_precedence_is_that_of_python_sets():
    a, b, c = (set(parse_pattern(text).detectors(CAMERA)) for text in ("0-99", "50-150", "75-188"))
    words = {"a": "0..99", "b": "50..150", "c": "75..188"}
    for one in "|^&-":
        for two in "|^&-":
            text = f"{words['a']} {one} {words['b']} {two} {words['c']}"
            expected = eval(f"a {one} b {two} c", {"a": a, "b": b, "c": c})  # noqa: S307 - letters from above
            if expected:
                assert parse_pattern(text).detectors(CAMERA) == expected, text


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "empty"),
        ("   ", 1, "empty"),
        ("all &", 6, "not the end"),
        ("& all", 1, "'&'"),
        ("all & & e2v", 7, "'&'"),
        ("R22 R33", 5, "before 'R33'"),
        ("all e2v", 5, "before 'e2v'"),
        ("R22 (R33)", 1, "no pattern 'R22' takes arguments"),
        ("94 (R33)", 4, "before '('"),
        ("(R22", 5, "close the '(' of column 1"),
        ("R22)", 4, "closes nothing"),
        ("()", 2, "not ')'"),
        ("[1,2)", 5, "']'"),
        ("1,,2", 3, "not ','"),
        ("1,2,", 5, "not the end"),
        ("1,~2", 3, "parentheses"),
        ("0..", 4, "last number"),
        ("0..x", 4, "last number"),
        ("..5", 1, "'..'"),
        ("9-0", 1, "backwards"),
        ("9..0", 1, "backwards"),
        ("0 - 9", 3, "for the range"),
        ("all - R22 | 0 - 9", 15, "for the range"),
        ("all-unvignetted", 4, "all_unvignetted"),
        ("1.5", 1, "no number of a detector"),
        ("ccd_checkerboard[", 18, "number of a phase"),
        ("ccd_checkerboard[x]", 18, "number of a phase"),
        ("ccd_checkerboard[1", 19, "close the '['"),
        ("ccd_checkerboard[-1]", 18, "number of a phase"),
        ("ccd_checkerboard@0@1", 19, "already"),
        ("all(3)", 5, "no such argument"),
        ("spiral(1,2,3)", 12, "no such argument"),
        ("spiral()", 7, "empty parentheses"),
        ("spiral(x)", 8, "whole number"),
        ("spiral(1.5)", 8, "whole number"),
        ("spiral(1", 9, "close"),
        ("rings(R22)", 7, "whole number"),
        ("unvignetted(far)", 13, "must be a number"),
        ("raft", 1, "raft(RAFT"),
        ("raft(1.5)", 6, "a name"),
        ("magic(3)", 1, "no pattern 'magic'"),
        ("e2v + R22", 5, "for a union write |"),
        ("!e2v", 1, "write ~"),
        ("all \u2212 R22", 5, "MINUS SIGN"),
        ("all\x00", 4, "U+0000"),
        ("\U0001f52d", 1, "TELESCOPE"),
        ("\u0663", 1, "U+0663"),
        ("1" * 10, 1, "too large"),
        ("0-" + "9" * 5000, 4097, "characters"),
        ("all | " * 2000, 4097, "characters"),
        ("(" * 21 + "1" + ")" * 21, 21, "within each other"),
        ("~" * 4000 + "1", 21, "within each other"),
        ("(" * 4000, 21, "within each other"),
        ("[" * 4000, 21, "within each other"),
    ],
)  # fmt: skip
def test_malformed_text_is_refused_where_it_is_wrong(text, column, words):
    with pytest.raises(PatternError) as caught:
        parse_pattern(text)
    error = caught.value
    assert words in error.message
    assert error.column == column
    assert error.facts["column"] == column
    if text.strip():
        *_, line, caret = error.message.splitlines()
        assert caret.strip() == "^"
        assert len(caret) <= len(line) + 1
    assert len(error.message) < 600


def test_the_caret_points_at_the_fault_in_a_long_line():
    text = "R22 | " * 100 + "? | " + "R33 | " * 100
    with pytest.raises(PatternError) as caught:
        parse_pattern(text)
    _, line, caret = caught.value.message.splitlines()
    assert line[caret.index("^")] == "?"
    assert len(line) < 80


def test_an_error_is_one_of_configuration_and_ready_for_json():
    with pytest.raises(ConfigurationError) as caught:
        parse_pattern("all &")
    facts = caught.value.to_dict()
    assert facts["code"] == "bad_pattern"
    assert (facts["field"], facts["column"], facts["text"]) == ("pattern", 6, "all &")
    assert caught.value.retry is Retry.NEVER


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R99", "'R99'"),
        ("R22_S33", "did you mean R22_S"),
        ("ccd_checkerbord", "did you mean ccd_checkerboard?"),
        ("205", "no detector 205"),
        ("all - 205", "no detector 205"),
        ("0-205", "no detector 205"),
        ("0..999999999", "no detector 205"),
        ("raft(R22,R99)", "no raft R99"),
        ("slot(S99)", "no slot S99"),
        ("vendor(Hamamatsu)", "no vendor Hamamatsu"),
        ("e2v & itl", "selects no detector of LSSTCam"),
        ("R22 - R22", "selects no detector"),
        ("~all", "selects no detector"),
        ("R22_S11 & ccd_checkerboard", "in phase 0"),
        ("all@1", "all has phase 0 only in LSSTCam"),
        ("ccd_checkerboard[2]", "the phases 0 to 1"),
        ("(ccd_checkerboard@1)@1", "phase 0 only"),
        ("rings(5)", "from 1 to 4"),
        ("rings(0)", "from 1 to 4"),
        ("spiral(9)", "arms must be from 1 to 8"),
        ("spiral(2,0)", "turns must be from 1 to 4"),
        ("horizontal(16)", "from 1 to 15"),
        ("cross(0)", "from 1 to 15"),
        ("unvignetted(0)", "above 0"),
        ("unvignetted(0.01)", "selects no detector"),
        ("unvignetted(999999999)", "at most 90"),
        ("a" * 4000, "a name of 4000 characters"),
    ],
)
def test_what_the_camera_does_not_have_is_named(text, words):
    with pytest.raises(PatternError) as caught:
        parse_pattern(text).detectors(CAMERA)
    assert words in caught.value.message


@pytest.mark.parametrize("name", ["e2v", "guiders", "wavefront"])
def test_a_pattern_without_detectors_on_this_camera_is_named(name):
    with pytest.raises(PatternError, match=f"{name} selects no detector of LSSTComCam"):
        parse_pattern(name).detectors(COMCAM)
    # Within an expression it is just empty: what holds for the large camera holds for the small one.
    assert parse_pattern(f"all - {name}").detectors(COMCAM) == COMCAM.science_ids


def test_the_column_of_what_is_missing_points_into_the_text():
    with pytest.raises(PatternError) as caught:
        parse_pattern("e2v | R22, R99").detectors(CAMERA)
    assert caught.value.column == 12


def test_a_pinned_phase_does_not_move_and_others_do():
    pattern = parse_pattern("ccd_checkerboard@1 | raft_checkerboard")
    assert pattern.phases(CAMERA) == 2
    pinned = parse_pattern("ccd_checkerboard[1]").detectors(CAMERA)
    for phase in (0, 1):
        moving = parse_pattern("raft_checkerboard").detectors(CAMERA, phase)
        assert pattern.detectors(CAMERA, phase) == pinned | moving
    assert parse_pattern("(ccd_checkerboard | raft_checkerboard)[1]").phases(CAMERA) == 1


def test_phases_that_do_not_differ_are_one():
    assert parse_pattern("ccd_checkerboard | ~ccd_checkerboard").phases(CAMERA) == 1
    assert parse_pattern("ccd_checkerboard & R22_S00 | 94").phases(CAMERA) == 2
    assert parse_pattern("ccd_checkerboard & wavefront | 94").phases(CAMERA) == 1


def test_excluded_detectors_are_taken_away_last():
    pattern = parse_pattern("R22")
    assert pattern.detectors(CAMERA, exclude={94, 0, 999}) == set(range(90, 99)) - {94}
    assert pattern.detectors(CAMERA, exclude=range(90, 99)) == frozenset()


def test_a_negative_phase_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="phase -1"):
        parse_pattern("all").detectors(CAMERA, -1)


def test_what_is_no_text_is_refused():
    with pytest.raises(PatternError, match="is text, not int"):
        parse_pattern(94)  # type: ignore[arg-type]


def test_long_chains_are_wide_not_deep():
    n = 1000
    text = "|".join(str(i % 189) for i in range(n))
    assert parse_pattern(text).detectors(CAMERA) == CAMERA.science_ids
    deep = "(" * 20 + "94" + ")" * 20
    assert parse_pattern(deep).detectors(CAMERA) == {94}
    worst = "94"
    for _ in range(20):
        worst = f"({worst} | 1 ^ 2 & 3 - 4,5)"
    assert str(parse_pattern(str(parse_pattern(worst)))) == str(parse_pattern(worst))


# -- laws ------------------------------------------------------------------------------------------------------------

names = st.sampled_from(
    [known.name for known in list_patterns() if not known.needs_arguments]
    + ["R22", "r01", "R22_S11", "94", "0-9", "3..7", "spiral(3,2)", "rings(2)", "unvignetted(1.2)", "raft(R22,R33)",
       "ccd_checkerboard[1]", "raft_checkerboard@0", "1,2,3"]
)  # fmt: skip


def grown(inner):
    return st.one_of(
        st.tuples(inner, st.sampled_from("|&^-,"), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        st.lists(inner.map("({})".format), min_size=2, max_size=4).flatmap(
            lambda parts: st.sampled_from("|&^-").map(lambda sign: f" {sign} ".join(parts))
        ),
        inner.map("~({})".format),
        inner.map("({})@0".format),
    )


expressions = st.recursive(names, grown, max_leaves=8)


def cycle(text, n=2):
    found = parse_pattern(text).cycle(CAMERA)
    return [found[phase % len(found)] for phase in range(n)]


@given(expressions, expressions, expressions)
@settings(max_examples=25, deadline=None)
def test_laws_of_sets_hold_in_every_phase(a, b, c):
    pairs = [
        (f"({a}) | ({b})", f"({b}) | ({a})"),
        (f"({a}) & ({b})", f"({b}) & ({a})"),
        (f"({a}) ^ ({b})", f"(({a}) | ({b})) - (({a}) & ({b}))"),
        (f"({a}) & (({b}) | ({c}))", f"({a}) & ({b}) | ({a}) & ({c})"),
        (f"({a}) - ({b}) - ({c})", f"({a}) - (({b}) | ({c}))"),
        (f"~(({a}) | ({b}))", f"(~({a})) & ~({b})"),
        (f"~(({a}) & ({b}))", f"(~({a})) | ~({b})"),
        (f"~~({a})", f"all & ({a})"),
        (f"({a}), ({b})", f"({a}) | ({b})"),
        (f"~({a})", f"all - ({a})"),
    ]
    for left, right in pairs:
        if len(left) < 4000 and len(right) < 4000:
            assert cycle(left) == cycle(right), (left, right)


@given(expressions)
@settings(max_examples=200, deadline=None)
def test_canonical_text_reads_back_as_the_same_pattern(text):
    pattern = parse_pattern(text)
    again = parse_pattern(str(pattern))
    assert again == pattern
    assert str(again) == str(pattern)
    assert again.cycle(CAMERA) == pattern.cycle(CAMERA)


pieces = st.sampled_from(
    ["all", "e2v", "R22", "R22_S11", "94", "0", "999999999", "-", "|", "&", "^", "~", "(", ")", "[", "]", "@", ",", "..",
     ".", " ", "  ", "5 on a die", "spiral", "rings", "raft", "phase1", "\t", "\n", "é", "x"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(pieces, max_size=40).map("".join)))
@example("5-on-a-die-5-on-a-die")
@example("1-2-3")
@example("R22[1][2]")
@settings(max_examples=250, deadline=None)
def test_any_text_is_a_pattern_or_a_pattern_error(text):
    error = None
    try:
        pattern = parse_pattern(text)
        assert parse_pattern(str(pattern)) == pattern
        for phase in range(pattern.phases(CAMERA)):
            assert pattern.detectors(CAMERA, phase) <= CAMERA.by_id.keys()
    except PatternError as caught:
        error = caught
    if error is not None:
        assert 1 <= error.column <= len(text) + 1
        assert all(" " <= c <= "~" or c == "\n" for c in error.message)


def test_hostile_depth_leaves_the_stack_alone():
    limit = sys.getrecursionlimit()
    for text in ("(" * 2000 + "1" + ")" * 2000, "~(" * 1300, "raft(" * 800, "1" + "@0" * 1500, "[(" * 2000):
        with pytest.raises(PatternError):
            parse_pattern(text)
    assert sys.getrecursionlimit() == limit
