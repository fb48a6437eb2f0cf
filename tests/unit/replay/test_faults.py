"""Faults as data: what they say, whom they touch, what a night becomes by them."""

import pytest

from rapid.errors import ConfigurationError
from replay.events import FaultEvent, RawsEvent
from replay.fault_check import check_exposures, check_targets
from replay.fault_files import load_faults
from replay.faults import (
    Await,
    Delay,
    Drop,
    Kill,
    PayloadFault,
    fault_event,
    faults_of,
    parse_fault,
    spoil_night,
    with_faults,
)
from replay.plan import make_plan
from replay.planned import recording_of_plan

FIRST, SECOND = 2026112000001, 2026112000002


@pytest.fixture(scope="module")
def night():
    """Two exposures of a camera of nine CCDs."""
    blocks = [{"kind": "science", "n": 2, "physical_filter": "r_03"}]
    return recording_of_plan(make_plan({"camera": "LSSTComCam", "day_obs": 20261120, "blocks": blocks}))


def spoilt(night, *faults, at_s=0.0):
    return spoil_night(with_faults(night, [fault_event(at_s, parse_fault(fault)) for fault in faults]))


def arrivals(night):
    """Return, by exposure, the names that arrive in order of time, with what is wrong with them."""
    found: dict[int, list[tuple[str, str]]] = {}
    for event in night.events:
        if isinstance(event, RawsEvent):
            found.setdefault(event.exposure, []).extend((n, event.quarantined.get(n, "")) for n in event.detectors)
    return found


def test_what_is_dropped_does_not_arrive_and_the_rest_does(night):
    found = arrivals(spoilt(night, {"kind": "drop", "exposures": [1], "detectors": ["R22_S11"]}))
    assert [len(found[exposure]) for exposure in (FIRST, SECOND)] == [8, 9]
    assert "R22_S11" not in dict(found[FIRST])


def test_an_exposure_that_is_dropped_whole_does_not_arrive_at_all(night):
    assert arrivals(spoilt(night, {"kind": "drop", "exposures": [SECOND]})).keys() == {FIRST}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param({"kind": "truncate"}, ["raw_truncated"], id="cut off for good"),
        pytest.param({"kind": "truncate", "mended_after_s": 5}, ["raw_truncated", ""], id="cut off and mended"),
        pytest.param({"kind": "duplicate"}, ["", ""], id="comes twice"),
        pytest.param({"kind": "corrupt"}, ["raw_corrupt"], id="a damaged header"),
        pytest.param({"kind": "corrupt", "what": "everything"}, ["raw_not_fits"], id="no FITS file"),
    ],
)
def test_what_is_spoilt_arrives_spoilt(night, fault, expected):
    found = arrivals(spoilt(night, fault | {"exposures": [FIRST], "detectors": ["R22_S11"]}))
    assert [problem for name, problem in found[FIRST] if name == "R22_S11"] == expected
    assert {problem for _, problem in found[SECOND]} == {""}


def test_what_is_late_comes_after_the_summary_was_awaited(night):
    made = spoilt(
        night, {"kind": "delay", "by_s": 50, "after_summary": True, "exposures": [1], "detectors": ["R22_S00"]}
    )
    late = made.events[-2:]
    assert [event.kind for event in late] == ["fault", "raws"]
    assert late[0].fault == {"kind": "await", "exposure": FIRST}
    assert late[1].detectors == ("R22_S00",)
    assert late[1].at_s == pytest.approx(late[0].at_s)


def test_what_is_mended_comes_after_the_cut_off_one_was_set_aside(night):
    cut = {"kind": "truncate", "exposures": [1], "detectors": ["R22_S00"], "mended_after_s": 50}
    made = spoilt(night, cut | {"after_quarantine": True})
    awaited, mended = made.events[-2:]
    assert awaited.fault == {
        "kind": "await",
        "exposure": FIRST,
        "until": "quarantined",
        "detector": "R22_S00",
    }
    assert (mended.detectors, mended.quarantined) == (("R22_S00",), {})


def test_a_fault_of_raws_begins_at_its_moment_and_ends(night):
    first_s, second_s = (event.at_s for event in night.events if isinstance(event, RawsEvent))
    assert arrivals(spoilt(night, {"kind": "drop"}, at_s=second_s)).keys() == {FIRST}
    assert arrivals(spoilt(night, {"kind": "drop", "until_s": first_s + 5})).keys() == {SECOND}


def test_chance_is_the_same_for_the_same_seed_and_another_for_another(night):
    half = {"kind": "drop", "probability": 0.5}
    found = arrivals(spoilt(night, half))
    assert 0 < sum(len(raws) for raws in found.values()) < 18
    assert found == arrivals(spoilt(night, half))
    assert found != arrivals(spoilt(night.with_manifest(seed=99), half))


def test_only_faults_of_processes_stay_in_a_night(night):
    made = spoilt(
        night, {"kind": "kill", "target": "worker-0"}, {"kind": "payload", "does": "fail"}, {"kind": "duplicate"}
    )
    assert [event.fault["kind"] for event in made.events if isinstance(event, FaultEvent)] == ["kill"]
    assert spoil_night(made).events == made.events


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        pytest.param({}, "fault: kind.*is one of kill, freeze", id="no kind"),
        pytest.param({"kind": "meteor"}, "kind", id="a kind that is none"),
        pytest.param({"kind": "kill"}, "target", id="nobody to kill"),
        pytest.param({"kind": "kill", "target": "king"}, "target", id="a role that is none"),
        pytest.param({"kind": "freeze", "target": "worker-0"}, "for_s", id="frozen for how long"),
        pytest.param({"kind": "freeze", "target": "worker-0", "for_s": -1}, "for_s", id="a negative time"),
        pytest.param({"kind": "drop", "probability": 2}, "probability", id="more than certain"),
        pytest.param({"kind": "drop", "detector": "R22_S11"}, "detector", id="a field that is none"),
        pytest.param({"kind": "payload", "does": "sing"}, "does", id="no such misbehaviour"),
        pytest.param({"kind": "power_cut"}, "lost_bytes", id="nothing that is lost"),
        pytest.param({"kind": "kill", "target": "head", "busy": True}, "busy: only a worker", id="busy without jobs"),
        pytest.param(
            {"kind": "kill", "target": "gather", "what": "payload"}, "what: only a worker", id="no payload to kill"
        ),
        pytest.param({"kind": "s3_outage"}, "for_s", id="a bucket away for how long"),
        pytest.param({"kind": "truncate", "after_quarantine": True}, "mended_after_s", id="mended, but never"),
        pytest.param(
            {"kind": "freeze", "target": "head", "for_s": 9, "given_away": True}, "only a worker", id="a head's jobs"
        ),
    ],
)
def test_what_is_no_fault_is_refused_with_its_field(facts, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        parse_fault(facts)


def test_a_detector_that_the_camera_does_not_have_is_refused(night):
    with pytest.raises(ConfigurationError, match="R99_S99"):
        faults_of(with_faults(night, [fault_event(0, Drop(detectors=("R99_S99",)))]))


def test_faults_are_read_from_a_file(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {at_s: 3, kind: kill, target: worker-0}\n- {at_s: 5.5, kind: delay, by_s: 9, probability: 0.1}\n"
        f"- {{at_s: 7, kind: await, exposure: {FIRST}, until: complete}}\n"
    )
    first, second, third = load_faults(path)
    assert Await.model_validate(third.fault) == Await(exposure=FIRST, until="complete")
    assert (first.at_s, parse_fault(first.fault)) == (3.0, Kill(target="worker-0"))
    assert (second.at_s, parse_fault(second.fault)) == (5.5, Delay(by_s=9, probability=0.1))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("kind: kill", "not a list", id="one fault alone"),
        pytest.param("- kill", "faults.0", id="a word"),
        pytest.param("- {at_s: 1, kind: await, exposure: 3, until: never}", "faults.0: until", id="waiting for ever"),
        pytest.param("- {kind: drop}", "at_s", id="no time"),
        pytest.param("- {at_s: 1, kind: drop}\n- {at_s: 1, kind: kill, target: x}", "faults.1.*target", id="no role"),
        pytest.param("- {at_s: 1", "not YAML", id="no YAML"),
    ],
)
def test_a_file_that_is_not_valid_is_refused_with_the_place(tmp_path, text, complaint):
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        load_faults(path)


def test_a_fault_of_payloads_says_what_it_does():
    fault = parse_fault({"kind": "payload", "does": "die", "exposures": [3], "times": 1})
    assert isinstance(fault, PayloadFault)
    assert fault.touches(2026112000003, "R22_S00")
    assert not fault.touches(2026112000004, "R22_S00")


def test_a_fault_of_a_worker_that_is_not_there_is_refused(night):
    spoilt = with_faults(night, [fault_event(1.0, Kill(target="worker-2"))])
    check_targets(spoilt, ["head", "worker-2"], has_bucket=False)
    with pytest.raises(
        ConfigurationError, match=r"fault kill: target.*worker-2: the system has valkey, head, worker-0"
    ):
        check_targets(spoilt, ["head", "worker-0"], has_bucket=False)
    check_targets(with_faults(night, [fault_event(1.0, Kill(target="valkey"))]), [], has_bucket=False)


def test_an_outage_of_a_bucket_needs_one(night):
    made = with_faults(night, [fault_event(1.0, parse_fault({"kind": "s3_outage", "for_s": 1}))])
    check_targets(made, [], has_bucket=True)
    with pytest.raises(ConfigurationError, match=r"s3_outage.*in no bucket"):
        check_targets(made, [], has_bucket=False)


@pytest.mark.parametrize(
    ("at_s", "facts", "complaint"),
    [
        pytest.param(
            0, {"kind": "drop", "exposures": [7]}, "fault drop: exposures.*no raw of 7", id="another exposure"
        ),
        pytest.param(900, {"kind": "drop"}, "fault drop: at_s.*from 900 s on", id="after the night"),
        pytest.param(900, {"kind": "payload", "does": "fail"}, "fault payload: at_s", id="a payload after the night"),
        pytest.param(40, {"kind": "drop", "exposures": [1]}, "fault drop: at_s", id="after its exposure"),
        pytest.param(
            0, {"kind": "power_cut", "lost_since": 2026112000003}, "power_cut: lost_since", id="a loss since another"
        ),
    ],
)
def test_a_fault_that_cannot_happen_is_refused(night, at_s, facts, complaint):
    check_exposures(with_faults(night, [fault_event(0.0, Drop(exposures=(2,)))]))
    with pytest.raises(ConfigurationError, match=complaint):
        check_exposures(with_faults(night, [fault_event(at_s, parse_fault(facts))]))


def test_waiting_for_an_exposure_that_does_not_come_is_refused(night):
    with pytest.raises(ConfigurationError, match=r"await: exposure.*2026112000009"):
        check_exposures(with_faults(night, [fault_event(1.0, Await(exposure=2026112000009))]))
