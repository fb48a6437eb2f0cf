"""What colour an amp has on the map of a verification."""

import pytest

from rapid.display.calibrations.assemble import amp_outcomes
from rapid.verification.models import Limits, Measured, Outcome, Subject, Verification


def verification(outcome: Outcome, *, required: bool) -> Verification:
    facts = {"camera": "LSSTCam", "kind": "bias", "subject": Subject.MASTER, "exposure": 1, "detector": 94}
    return Verification.model_validate(
        facts
        | {
            "detector_name": "R22_S11",
            "outcome": Outcome.PASS,
            "amps": {"C00": {"NOISE": Measured(value=0.0, outcome=outcome), "INPUT_SCATTER": Measured(outcome=Outcome.NOT_MEASURED)}},
            "limits": {"INPUT_SCATTER": Limits(required=required, reason="a test", valid_from="2020-01-01")},
            "excluded": {"C01": "noisy"},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "required", "shown"),
    [
        pytest.param(Outcome.PASS, False, "pass", id="what need not be measured says nothing"),
        pytest.param(Outcome.PASS, True, "not_measured", id="what must be does"),
        pytest.param(Outcome.FAIL, True, "fail", id="a failure is a failure"),
        pytest.param(Outcome.NOT_MEASURED, False, "not_measured", id="nothing was measured"),
    ],
)
def test_an_amp_is_shown_as_its_tests_make_it_out(outcome, required, shown):
    assert amp_outcomes(verification(outcome, required=required)) == {"C00": shown, "C01": "excluded"}
