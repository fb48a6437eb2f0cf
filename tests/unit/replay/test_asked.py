"""Requests of a night: asked again for an incident, and known again in another night."""

import pytest

from rapid.errors import ConfigurationError
from rapid.requests.models import RequestRecord, RequestSpec, RequestState
from replay.asked import asked_again, comparable_runs, pair_requests
from replay.events import RequestEvent

E = 2026112000007


def record_of(under: str = "request-5-0", /, **spec) -> RequestRecord:
    asked = RequestSpec.model_validate(spec)
    return RequestRecord(
        request_id="5-0",
        camera="LSSTCam",
        state=RequestState.DONE,
        spec=asked,
        run=under,
        asked_by="ann",
        members=(E, E + 1),
    )


def spec_again(record: RequestRecord, detector: str = "R22_S11") -> dict:
    event = asked_again(record, E, detector, at_s=9.0)
    assert (event.at_s, event.by, event.run) == (9.0, "ann", record.run)
    assert RequestSpec.model_validate(event.spec)
    return event.spec


def test_one_detector_of_one_exposure_is_asked_for_with_the_same_settings():
    asked = record_of(
        select={"exposures": [E, E + 1, E + 2]},
        detectors="all",
        pipeline="quicklook",
        config={"isr": {"flat": False}},
        deadline_s=100.0,
        client_key="once",
    )
    assert spec_again(asked) == {
        "select": {"exposures": [E]},
        "detectors": ["R22_S11"],
        "pipeline": "quicklook",
        "config": {"isr": {"flat": False}},
        "reuse": False,
    }


def test_a_campaigns_becomes_a_request_for_one_exposure_under_its_name():
    asked = record_of("deep", run="deep", select={"campaign": {"nights": [20261120]}})
    assert spec_again(asked) == {
        "select": {"exposures": [E]},
        "detectors": ["R22_S11"],
        "run": "deep",
        "reuse": False,
    }


def test_of_what_was_combined_all_exposures_are_asked_for():
    asked = record_of(select={"next": {"n": 2, "image_type": "focus"}}, combine="donut_pair")
    assert spec_again(asked, "")["select"] == {"exposures": [E, E + 1]}


def test_a_guaranteed_exposure_is_so_again_unless_one_detector_is_meant():
    asked = record_of(select={"exposures": [E]}, guaranteed=True)
    assert spec_again(asked, "")["guaranteed"] is True
    assert "guaranteed" not in spec_again(asked)


def test_what_took_the_place_of_other_results_is_no_request_of_its_own():
    with pytest.raises(ConfigurationError, match="under a run of its own"):
        asked_again(record_of(select={"affected": {"calib": "LSSTCam.bias.*"}}), E, "", at_s=1.0)


def event_of(request_id: str, ended: str = "done", run: str = "", **spec) -> RequestEvent:
    asked = {"select": {"exposures": [E]}} | spec
    return RequestEvent(at_s=1.0, request_id=request_id, spec=asked, ended=ended, run=run or f"request-{request_id}")


def test_the_second_of_two_alike_is_the_second():
    pairs = pair_requests([event_of("1-1"), event_of("1-2")], [event_of("7-1"), event_of("7-2")])
    assert [(then.request_id, now.request_id) for then, now in pairs] == [("1-1", "7-1"), ("1-2", "7-2")]
    runs = comparable_runs(pairs)
    assert runs.then["request-1-2"] == runs.now["request-7-2"] == "request 1-2"


@pytest.mark.parametrize(
    ("then", "now"),
    [
        pytest.param({"ended": "cancelled"}, {"ended": "cancelled"}, id="cancelled"),
        pytest.param({}, {"ended": "expired"}, id="not done now"),
        pytest.param({"run": "prompt"}, {"run": "prompt"}, id="its results are the night's own"),
    ],
)
def test_what_was_not_done_both_times_under_a_run_of_its_own_is_not_compared(then, now):
    runs = comparable_runs(pair_requests([event_of("1-1", **then)], [event_of("7-1", **now)]))
    assert set(runs.then) == set(runs.now) == {"prompt"}


def test_a_run_that_has_a_name_keeps_it():
    then, now = event_of("1-1", run="deep"), event_of("7-1", run="deep")
    assert comparable_runs(pair_requests([then], [now])).then["deep"] == "deep"
