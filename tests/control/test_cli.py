"""`rapid control` and `rapid acl`, as typed."""

import json
import socket
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from rapid.cli import app
from rapid.errors import RapidError
from rapid.exposure.models import ImageType


@pytest.fixture
def rapid(valkey, client, monkeypatch) -> Callable[..., Result]:
    monkeypatch.setenv("RAPID_REDIS_URL", valkey.url)
    monkeypatch.setenv("RAPID_CAMERA", "LSSTCam")
    runner = CliRunner()
    return lambda *words: runner.invoke(app, list(words))


def said(result: Result) -> str:
    """Return what `rapid` prints for an error it raised."""
    assert isinstance(result.exception, RapidError), result.output
    return result.exception.message


def test_what_is_set_is_read_back_and_logged(rapid, store):
    result = rapid(
        "control", "set", "pattern=ccd_checkerboard & e2v", "visit_mode=ALTERNATING_IN_TWOS", "timeouts.gather_s=8",
        "pipelines.science=quicklook", "shedding.enabled=false", "-m", "clouds",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "version 1, by " in result.stdout
    document = store.read()
    assert document.state.pattern == "ccd_checkerboard & e2v"
    assert document.state.timeouts.gather_s == 8
    assert document.state.pipelines == {ImageType.SCIENCE: "quicklook"}
    assert not document.state.shedding.enabled
    assert document.changed_by.endswith(f"@{socket.gethostname()}")
    assert rapid("control", "get", "visit_mode").stdout == "alternating_by_twos\n"
    assert rapid("control", "get", "timeouts.gather_s").stdout == "8.0\n"
    history = rapid("control", "history").stdout
    assert "(clouds)" in history
    assert "timeouts.gather_s: - -> 8.0" in history


def test_numbers_that_are_patterns_stay_text(rapid, store):
    assert rapid("control", "set", "pattern=94", "patterns.mine=1,2,3").exit_code == 0
    assert store.read().state.pattern == "94"
    assert store.read().state.patterns == {"mine": "1,2,3"}


def test_an_empty_value_is_the_default(rapid, store):
    rapid("control", "set", "pattern=minimal", "timeouts.gather_s=8", "witness_detector=5", "patterns.mine=R22")
    rapid("control", "set", "pattern=", "timeouts.gather_s=", "witness_detector=null", "patterns.mine=")
    state = store.read().state
    assert (state.pattern, state.timeouts.gather_s, state.witness_detector, state.patterns) == ("all", None, None, {})


def test_guaranteed_exposures_are_added_and_taken_away(rapid, store):
    rapid("control", "set", "guaranteed+=2026112000001,2026112000002")
    rapid("control", "set", "guaranteed+=2026112000003", "pattern=minimal")
    rapid("control", "set", "guaranteed-=2026112000001")
    assert store.read().state.guaranteed == {2026112000002, 2026112000003}
    assert store.read().state.pattern == "minimal"


def test_what_get_prints_can_be_given_back_with_a_file(rapid, store, tmp_path):
    rapid("control", "set", "pattern=minimal", "patterns.mine=R22", "shedding.ladder=[minimal, ultra_minimal]")
    document = rapid("control", "get", "--json").stdout
    rapid("control", "set", "pattern=all", "shedding.ladder=")
    file = tmp_path / "state.json"
    file.write_text(document)
    assert rapid("control", "set", "--file", str(file), "timeouts.gather_s=7").exit_code == 0
    state = store.read().state.model_dump(mode="json")
    wanted = json.loads(document)["state"]
    wanted["timeouts"]["gather_s"] = 7.0
    assert state == wanted


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pattern=R99"], "pattern: LSSTCam has no"),
        (["timeouts.gather=5"], "timeouts.gather: there is no such field (did you mean gather_s?)"),
        (["timeouts.gather_s=soon"], "timeouts.gather_s: "),
        (["timeouts.gather_s=[1"], "timeouts.gather_s: '[1' is no value"),
        (["pipelines.science=nothing"], "pipelines.science: "),
        (["pattern"], "is no assignment"),
        (["=all"], "is no assignment"),
        (["pattern=all", "pattern=minimal"], "pattern: is given twice"),
        (["pattern+=R22"], "only guaranteed takes += and -="),
        (["guaranteed+=tonight"], "is no list of exposure ids"),
        (["guaranteed+=5"], "guaranteed: 5 is no exposure id"),
        (["timeouts=5", "timeouts.gather_s=5"], "timeouts"),
        (["--file", "/no/such/file"], "/no/such/file: cannot be read"),
    ],
)
def test_a_refusal_names_the_field_and_changes_nothing(rapid, store, words, says):
    result = rapid("control", "set", *words)
    assert result.exit_code == 1
    assert says in said(result)
    assert store.read().version == 0


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00", "just words"])
def test_a_file_that_is_no_document_is_refused(rapid, tmp_path, text):
    file = tmp_path / "state.yaml"
    file.write_text(text)
    assert str(file) in said(rapid("control", "set", "--file", str(file)))


def test_nothing_to_change_is_a_usage_error(rapid):
    assert rapid("control", "set").exit_code == 2


def test_not_now_has_an_exit_status_of_its_own(rapid, store):
    rapid("control", "set", "pattern=minimal")
    late = rapid("control", "set", "pattern=all", "--if-version", "0")
    assert late.exit_code == 3
    assert "it is at version 1" in late.stderr
    assert rapid("control", "set", "pattern=all", "--if-version", "1").exit_code == 0


def test_an_unknown_field_cannot_be_asked_for(rapid):
    assert "no such field" in said(rapid("control", "get", "patern"))


def test_help_shows_examples(rapid):
    for words in (("control", "set"), ("control", "get"), ("control", "history"), ("acl",)):
        assert "Example: rapid" in " ".join(rapid(*words, "--help").stdout.split())


def test_users_are_printed_with_passwords_made_up_once(rapid, tmp_path):
    first = rapid("acl", "--passwords", str(tmp_path / "pw"), "--camera", "LSSTCam", "--camera", "LATISS")
    again = rapid("acl", "--passwords", str(tmp_path / "pw"), "--camera", "LSSTCam", "--camera", "LATISS")
    assert first.exit_code == 0, first.output
    assert first.stdout == again.stdout
    assert "~rapid:{LSSTCam}:*" in first.stdout
    assert "~rapid:{LATISS}:*" in first.stdout
    password = (tmp_path / "pw/worker").read_text().strip()
    assert len(password) > 30
    assert password not in first.stdout
    assert (tmp_path / "pw/worker").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", [("--role", "wizard"), ("--camera", "NoSuchCam")])
def test_users_of_nobody_are_refused_before_anything_is_written(rapid, tmp_path, words):
    said(rapid("acl", "--passwords", str(tmp_path / "pw"), *words))
    assert not (tmp_path / "pw").exists()
