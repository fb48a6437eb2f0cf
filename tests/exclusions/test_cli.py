"""`rapid exclude` and what `rapid status` tells of it, with a real board and a real store."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from rapid.cli import app
from rapid.dispatch.board import Board
from rapid.dispatch.models import BatchKey, BatchSpec, EventKind
from rapid.errors import ConfigurationError, RapidError
from rapid.exclusions.models import EndedAlreadyError, ExcludedAlreadyError, ExclusionError
from rapid.results.store import open_results
from tests.support.valkey import flush, serve_valkey

BEGIN = "2026-11-21T03:00:37"  # TAI
BEGIN_UTC = datetime(2026, 11, 21, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def board(server):
    flush(server)
    with Board(server.url, "LSSTCam") as board:
        board.load()
        yield board


@pytest.fixture
def rapid(server, board, tmp_path):
    open_results(str(tmp_path / "results.sqlite")).close()  # an installation has one

    def run(*words, redis=server.url):
        options = ["--camera", "LSSTCam", "--redis", redis]
        options += ["--data", str(tmp_path)] if words[0] == "exclude" else []
        result = CliRunner().invoke(app, [*words, *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def listed(rapid, *words):
    return json.loads(rapid("exclude", "list", "--json", *words))


def test_what_is_switched_off_is_listed_until_it_is_switched_on(rapid):
    rapid("exclude", "add", "R22_S11", "94/C00", "--reason", "noisy", "--from", "20261120")
    assert [(one["detector"], one["amp"], one["reason"]) for one in listed(rapid)] == [
        (94, None, "noisy"),
        (94, "C00", "noisy"),
    ]
    assert "@" in listed(rapid)[0]["author"]
    rapid("exclude", "end", "R22_S11", "--at", "20261122", "--reason", "fixed")
    rapid("exclude", "end", "R22_S11/C00", "--undo")
    assert [one["end_reason"] for one in listed(rapid, "--all")] == [None, "fixed"]
    assert "undone by" in rapid("exclude", "list", "--all")
    assert [one["amp"] for one in listed(rapid, "--at", "20261121")] == [None]
    assert listed(rapid, "--at", "20261123") == []


def test_a_raft_goes_as_a_whole(rapid):
    made = json.loads(rapid("exclude", "add", "R01", "--reason", "board off", "--json"))
    assert [one["detector"] for one in made] == list(range(9))
    rapid("exclude", "end", "R01")
    assert listed(rapid, "--at", "2026-11-30") == []


def test_without_a_time_it_holds_from_the_next_exposure_on(rapid, board):
    key = BatchKey(exposure_id=2026112000001, pipeline="quicklook")
    board.post(BatchSpec(key=key, camera="LSSTCam", image_type="science", expected={94}, info={"begin": BEGIN}))
    (made,) = json.loads(rapid("exclude", "add", "94", "--reason", "noisy", "--json"))
    begin = datetime.fromisoformat(made["valid_from"])
    assert 0 < (begin - BEGIN_UTC).total_seconds() < 1


def test_displays_are_told(rapid, board):
    last = board.last_event_id()
    rapid("exclude", "add", "R22_S11", "--reason", "noisy")
    (event,) = board.events(last, timeout_s=10)
    assert (event.kind, event.data) == (EventKind.EXCLUSION_CHANGED, {"what": "excluded", "names": ["R22_S11"]})


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["add", "R22_S99", "--reason", "x"], ExclusionError, "no detector 'R22_S99'"),
        (["add", "R22_S12", "--reason", " "], ExclusionError, "reason: must say why"),
        (["add", "R22_S12", "--reason", "x", "--from", "soon"], ExclusionError, "--from: 'soon'"),
        (["add", "R22_S12", "--reason", "x", "--from", "20261120", "--to", "20261119"], ExclusionError, "valid_to"),
        (["add", "R22_S12", "R22_S11", "--reason", "x"], ExcludedAlreadyError, "R22_S11 is excluded already: noisy"),
        (["end", "R22_S12"], ExclusionError, "R22_S12 is not excluded"),
        (["end", "2"], EndedAlreadyError, "was ended by"),
        (["end", "99"], RapidError, "no exclusion named 99"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_changes_nothing(rapid, words, error, says):
    rapid("exclude", "add", "R22_S11", "R22_S10", "--reason", "noisy")
    rapid("exclude", "end", "2")
    before = listed(rapid, "--all")
    with pytest.raises(error, match=says):
        rapid("exclude", *words)
    assert listed(rapid, "--all") == before


def test_status_names_what_is_excluded_in_the_newest_exposure(rapid, board):
    for seq_num, excluded in ((1, {0: "old"}), (2, {94: "noisy (ann)"})):
        board.post(
            BatchSpec(
                key=BatchKey(exposure_id=2026112000000 + seq_num, pipeline="quicklook"),
                camera="LSSTCam",
                image_type="science",
                expected={94, 95, 96},
                raws={95: "/raws/95.fits"},
                excluded=excluded,
                info={"excluded_amps": {"R22_S12": {"C00": "dead (bob)"}}},
            )
        )
    text = rapid("status")
    assert "newest exposure 2026112000002 (science, quicklook): 1 excluded, 1 queued, 1 waiting" in text
    assert "excluded R22_S11: noisy (ann)" in text
    assert "excluded R22_S12/C00: dead (bob)" in text
    assert "old" not in text
    newest = json.loads(rapid("status", "--json"))["newest"]
    assert newest["excluded"] == {"94": "noisy (ann)"}


def test_status_of_an_empty_board_has_no_newest_exposure(rapid):
    assert "newest" not in rapid("status")
    assert json.loads(rapid("status", "--json"))["newest"] == {}


def test_a_folder_without_results_is_not_taken_for_an_installation(rapid, tmp_path):
    (tmp_path / "results.sqlite").unlink()
    with pytest.raises(ConfigurationError, match="no results store at"):
        rapid("exclude", "add", "R22_S11", "--reason", "noisy")
    assert not (tmp_path / "results.sqlite").exists()
