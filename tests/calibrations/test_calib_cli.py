"""`rapid calib`: list, show, verify, certify and reject, as somebody at a terminal does."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from rapid.cli import app
from rapid.errors import RapidError
from tests.calibrations.lab import Lab

FAR = "redis://127.0.0.1:1/0"
"""Where no board is: the registry does not need one."""


@pytest.fixture(scope="module")
def lab(make) -> Lab:
    lab = make(seed=31)
    lab.build("bias", [lab.take("bias") for _ in range(4)])
    lab.build("bias", [lab.take("bias", offset_e=float(60 * n)) for n in range(4)])
    return lab


@pytest.fixture
def rapid(lab, monkeypatch):
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(lab.folder))

    def run(*words: str, status: int = 0, error: str = ""):
        found = CliRunner().invoke(app, ["calib", *words, "--camera", "LabCam", "--data", str(lab.folder)])
        if error:
            assert isinstance(found.exception, RapidError), found.output
            assert error in found.exception.message
            return ""
        assert found.exit_code == status, (found.output, found.exception)
        return found.stdout

    return run


def ids(lab: Lab) -> tuple[str, str]:
    """Return the good and the bad bias."""
    good, bad = lab.results.calibs("LabCam", kind="bias", state=None)[::-1]
    return good.calib_id, bad.calib_id


def test_the_list_tells_state_and_failures(lab, rapid):
    good, bad = ids(lab)
    text = rapid("list")
    assert good in text
    line = next(line for line in text.splitlines() if bad in line)
    assert line.startswith("rejected")
    assert "MEAN" in line
    documents = json.loads(rapid("list", "--state", "certified", "--kind", "bias", "--detector", "R22_S11", "--json"))
    assert [one["calib_id"] for one in documents] == [good]
    assert rapid("list", "--kind", "flat").strip() == "no calibs"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "--detector", "R99"), "no detector R99"),
        (("list", "--state", "fine"), "none of"),
        (("list", "--at", "yesterday"), "no time"),
        (("show", "nothing"), "nothing"),
        (("certify", "nothing-*"), "matches no calib"),
        (("verify", "2026112099999"), "2026112099999"),
    ],
)
def test_a_mistake_is_one_sentence(rapid, words, message):
    rapid(*words, error=message)


def test_show_tells_inputs_verification_and_history(lab, rapid):
    good, bad = ids(lab)
    text = rapid("show", bad)
    assert "rejected" in text
    assert "MEAN: fail" in text
    document = json.loads(rapid("show", good, "--json"))
    assert document["inputs"] == [2026112000001, 2026112000002, 2026112000003, 2026112000004]
    assert document["history"][0]["state"] == "certified"
    assert document["file"].endswith(".fits")


def test_verify_prints_the_field_s_layout(lab, rapid):
    good, bad = ids(lab)
    assert json.loads(rapid("verify", good, "--json"))[good]["SUCCESS"] is True
    document = yaml.safe_load(rapid("verify", bad, "--yaml", status=1))[bad]
    assert document["SUCCESS"] is False
    assert document["VERIFY"]["AMP"]["C00"]["SUCCESS"] is False
    assert "C00 READ_NOISE: pass" in rapid("verify", good, "--all")
    exposure = json.loads(rapid("verify", "2026112000001", "--json"))["2026112000001"]
    assert set(exposure["DETECTORS"]) == {"R22_S11"}


def test_certify_refuses_without_an_override_and_records_one(lab, rapid, monkeypatch):
    monkeypatch.setenv("RAPID_REDIS_URL", FAR)
    _, bad = ids(lab)
    rapid("certify", bad, error="override it, with a reason")
    found = json.loads(rapid("certify", bad, "--override", "--reason", "a test", "--by", "pat", "--json"))
    assert (found[0]["state"], found[0]["is_overridden"], found[0]["certified_by"]) == ("certified", True, "pat")
    assert "certified by pat (override): a test" in rapid("show", bad)
    rapid("reject", bad, "--reason", "enough", "--by", "pat")
    assert lab.results.calib("LabCam", bad).state.value == "rejected"
    certified = json.loads(
        rapid("list", "--as-of", lab.results.calib_events("LabCam", bad)[1].at.isoformat(), "--json")
    )
    assert bad in {one["calib_id"] for one in certified}
