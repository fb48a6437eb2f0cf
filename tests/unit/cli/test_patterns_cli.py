"""`rapid patterns` as a person uses it."""

import json

import pytest
from typer.testing import CliRunner

from rapid.cli import app
from rapid.errors import RapidError

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    monkeypatch.delenv("RAPID_CAMERA", raising=False)
    monkeypatch.chdir(tmp_path)


def rapid(*arguments, status=0):
    result = RUNNER.invoke(app, ["patterns", *map(str, arguments)])
    if isinstance(result.exception, RapidError):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.output


def test_without_argument_it_lists_every_name_with_size_and_meaning():
    lines = rapid().splitlines()
    row = next(line for line in lines if line.startswith("ccd_checkerboard"))
    assert row.split()[1:4] == ["96", "+", "93"]
    assert "every other detector" in row
    assert any(line.startswith("raft(RAFT,...)") for line in lines)
    assert len(lines) > 20
    comcam = rapid("--camera", "ComCam").splitlines()
    assert "LSSTComCam" in comcam[0]
    assert next(line for line in comcam if line.startswith("e2v")).split()[1] == "none"


def test_the_list_as_json():
    rows = {row["name"]: row for row in json.loads(rapid("--json"))}
    assert rows["raft_checkerboard"]["sizes"] == [108, 81]
    assert rows["raft_checkerboard"]["phases"] == 2
    assert rows["unvignetted"]["aliases"] == ["all_unvignetted"]


def test_an_expression_as_json():
    facts = json.loads(rapid("CCD_CHECKERBOARD & e2v | R22", "--phase", 1, "--json"))
    assert facts["pattern"] == "ccd_checkerboard & e2v | R22"
    assert (facts["camera"], facts["phase"], facts["phases"]) == ("LSSTCam", 1, 2)
    assert facts["n_detectors"] == len(facts["detectors"]) == len(facts["names"]) == 62
    assert {90, 91, 94} <= set(facts["detectors"])
    assert facts["rafts"]["R22"] == [f"S{a}{b}" for a in range(3) for b in range(3)]


def test_an_expression_for_people():
    text = rapid("5", "on", "a", "die")
    assert text.startswith("5-on-a-die: 45 of 205 detectors of LSSTCam")
    assert text.count("#") == 45
    assert "numbers  36-44,54-62,90-98,126-134,144-152" in text


def test_the_camera_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAPID_CAMERA", "LSSTComCam")
    assert json.loads(rapid("all", "--json"))["n_detectors"] == 9
    assert json.loads(rapid("all", "--json", "--camera", "LATISS"))["n_detectors"] == 1


@pytest.mark.parametrize(("name", "head"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")])
def test_a_picture_is_written(tmp_path, name, head):
    assert "wrote" in rapid("spiral", "--camera", "LSSTComCam", "--plot", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(head)


def test_picture_and_json_at_once_stay_apart(tmp_path):
    facts = json.loads(rapid("R22", "--json", "--plot", tmp_path / "a.png"))
    assert facts["plot"] == str(tmp_path / "a.png")
    rows = json.loads(rapid("--camera", "LATISS", "--json", "--plot", tmp_path / "sheet.png"))
    assert rows[0]["name"] == "all"
    assert (tmp_path / "sheet.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["itl", "--phase", "1"], "phase 0 only"),
        (["ccd_checkerboard", "--phase", "2"], "phases 0 to 1"),
        (["all", "--phase", "-1"], "greater than or equal to 0"),
        (["--phase", "1"], "needs a pattern"),
        (["all", "--plot", "a.gif"], "must end in .png"),
        (["all", "--plot", "nowhere/a.png"], "no folder"),
        (["all", "--plot", "a"], "must end in"),
    ],
)
def test_wrong_usage_is_told(arguments, words):
    assert words in " ".join(rapid(*arguments, status=2).split())


@pytest.mark.parametrize(
    ("expression", "words"),
    [("all &", "at column 6"), ("R99", "R99"), ("205", "no detector 205"), ("", "empty"), ("e2v & itl", "no detector")],
)
def test_a_bad_pattern_is_told_with_its_place(expression, words):
    with pytest.raises(RapidError, match=words) as caught:
        rapid(expression)
    assert caught.value.message.splitlines()[-1].strip() in {"^", caught.value.message}


def test_an_unknown_camera_is_told():
    with pytest.raises(RapidError, match="no camera named nope"):
        rapid("all", "--camera", "nope")


def test_help_shows_an_example():
    assert "rapid patterns 'all - R22, R33_S11'" in " ".join(rapid("--help").split())
