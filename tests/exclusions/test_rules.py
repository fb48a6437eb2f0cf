"""Rules on metrics, and exposures that are left out of builds."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.errors import NotFoundError
from rapid.exclusions.bad_exposures import BadExposureStore
from rapid.exclusions.models import EndedAlreadyError, ExcludedAlreadyError, ExclusionError, Target
from rapid.exclusions.rule_store import RuleStore
from rapid.exclusions.rules import RuleError, parse_rule
from rapid.results.store import open_results
from tests.support.records import make_result

NOW = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)


def result_with(seq_num: int = 1, detector: int = 94, *, metrics=None, amps=None, pipeline: str = "bias"):
    result = make_result(seq_num, detector)
    return result.model_copy(
        update={
            "metrics": metrics or {},
            "amps": amps or {},
            "pipeline": pipeline,
            "image_type": "bias",
            "detector_name": {94: "R22_S11", 0: "R01_S00"}.get(detector, "R99_S99"),
        }
    )


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("level > 5", True),
        ("level > 5 and detector in R22", True),
        ("level > 5 and detector in R01", False),
        ("level > 5 and detector in (R01, r22_s11)", True),
        ("level > 5 and detector in 94", True),
        ("level > 5 and detector not in R22", False),
        ("not level > 5", False),
        ("level > 5 and image_type == bias", True),
        ("level > 5 and image_type == 'flat'", False),
        ("level > 5 and raft == R22", True),
        ("level >= 7.5 and level <= 7.5", True),
        ("level > 1e1 or word == 'odd'", True),
        ("absent > 0", False),
        ("absent < 0", False),
        ("absent is null", True),
        ("level is not null", True),
        ("level is null", False),
        ("word > 5", False),
        ("level > other", True),
        ("(level > 5 or absent > 5) and not (level > 100)", True),
        ("level == 7.5 and seq_num == 1", True),
        ("level > -8", True),
    ],
)
def test_a_rule_means_what_it_says(text, matches):
    result = result_with(metrics={"level": 7.5, "other": 2.0, "word": "odd", "absent": None})
    assert (parse_rule(text).find(result) is not None) is matches


def test_a_rule_on_amps_is_met_by_one_amp_as_a_whole():
    result = result_with(amps={"C00": {"noise": 12.0, "gain": 1.0}, "C01": {"noise": 5.0, "gain": 3.0}})
    assert parse_rule("noise > 10 and gain > 2").find(result) is None
    assert str(parse_rule("noise > 10 and gain < 2").find(result)) == "C00: noise = 12, gain = 1"
    assert parse_rule("noise > 10 and amp == C01").find(result) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("level", "expected a comparison"),
        ("level >", "ends too soon"),
        ("level = 5", "to compare write =="),
        ("level > 5 extra", "expected and, or"),
        ("(level > 5", "to close the ( of column 1"),
        ("level > 5)", "expected and, or"),
        ("__import__('os')", "expected a comparison"),
        ("level.real > 5", "means nothing here (column 6)"),
        ("level in (1, 2)", "in is for detector"),
        ("detector in", "expected a name"),
        ("detector == R22_S11", "names no metric"),
        ("not " * 30 + "a > 1", "within each other"),
        ("(" * 30 + "a > 1" + ")" * 30, "within each other"),
        ("a > 1 or " * 200 + "a > 1", "1000 at most"),
    ],
)
def test_what_is_no_rule_is_told_with_its_place(text, said):
    with pytest.raises(RuleError, match=r"rule: ") as error:
        parse_rule(text)
    assert said in str(error.value)


@given(st.text(max_size=80))
def test_any_text_is_a_rule_or_refused(text):
    try:
        rule = parse_rule(text)
    except RuleError:
        return
    rule.find(result_with(metrics={"a": 1.0}))


@pytest.fixture
def results(tmp_path: Path):
    store = open_results(str(tmp_path / "results.sqlite"))
    yield store
    store.close()


def test_a_rule_excludes_what_is_stored_and_what_comes_before_the_next_build(results):
    first = result_with(1, metrics={"level": 9.0})
    camera = first.camera
    for one in (first, result_with(2, metrics={"level": 1.0}), result_with(1, 0, metrics={"level": 1.0})):
        results.put_result(one)
    results.put_result(result_with(3, metrics={"level": 9.0}, pipeline="quicklook"))
    rules, bad = RuleStore(results.engine), BadExposureStore(results.engine)
    assert [str(finding) for _, finding in rules.preview(camera, "level > 5", first_day=first.day_obs)] == ["level = 9"]
    assert bad.listed(camera) == []
    rule, found = rules.add(camera, "level > 5", reason="too bright", author="ann", first_day=first.day_obs, now=NOW)
    assert [one.name for one in found] == [f"{first.exposure}/R22_S11"]
    assert found[0].reason == "too bright: level = 9"
    later = result_with(4, metrics={"level": 8.0})
    results.put_result(later)
    assert [one.exposure for one in rules.apply(camera, [first.exposure, later.exposure], now=NOW)] == [later.exposure]
    assert rules.apply(camera, [first.exposure, later.exposure], now=NOW) == []
    assert set(bad.excluded_inputs(camera, [first.exposure, later.exposure], 94)) == {first.exposure, later.exposure}
    assert bad.excluded_inputs(camera, [first.exposure, later.exposure], 0) == {}
    # A finding that somebody undid is not made again.
    bad.undo(camera, found[0].id, by="bob", now=NOW, reason="it is fine")
    assert rules.apply(camera, [first.exposure], now=NOW) == []
    rules.end(camera, rule.id, by="bob", now=NOW, reason="too tight", undo=True)
    assert bad.listed(camera) == []
    assert len(bad.listed(camera, with_history=True)) == 2
    assert rules.listed(camera) == []
    with pytest.raises(EndedAlreadyError):
        rules.end(camera, rule.id, by="bob", now=NOW)


def test_an_exposure_is_excluded_once_and_included_again(results):
    bad = BadExposureStore(results.engine)
    target = Target(detector=94, detector_name="R22_S11")
    (one,) = bad.exclude("Cam", [1], targets=[target], reason="odd", author="ann", now=NOW)
    assert bad.excluded_inputs("Cam", [1, 2], 94) == {1: "odd (ann)"}
    assert bad.excluded_inputs("Cam", [1, 2], 95) == {}
    assert bad.excluded_inputs("Other", [1], 94) == {}
    (whole,) = bad.exclude("Cam", [1], reason="all of it", author="bob", now=NOW)
    assert set(bad.excluded_inputs("Cam", [1], 95)) == {1}
    with pytest.raises(ExcludedAlreadyError):
        bad.exclude("Cam", [2, 1], reason="again", author="ann", now=NOW)
    assert bad.excluded_inputs("Cam", [2], 94) == {}  # all or none
    bad.undo("Cam", whole.id, by="ann", now=NOW)
    with pytest.raises(EndedAlreadyError):
        bad.undo("Cam", whole.id, by="ann", now=NOW)
    assert bad.undo("Cam", one.id, by="ann", now=NOW, reason="fine").ended_by == "ann"
    with pytest.raises(NotFoundError):
        bad.undo("Cam", 99, by="ann", now=NOW)
    with pytest.raises(ExclusionError):
        bad.exclude("Cam", [3], reason=" ", author="ann", now=NOW)
