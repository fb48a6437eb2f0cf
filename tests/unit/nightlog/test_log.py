"""The night log: what is written stays, what is taken back is told as such, flags follow the newest word."""

from datetime import UTC, datetime

import pytest

from rapid.errors import NotFoundError
from rapid.nightlog.export import as_csv
from rapid.nightlog.models import Flag, LogError, RetractedAlreadyError, flags_of
from rapid.nightlog.store import NightLog
from rapid.results.store import open_results

NOW = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)
DAY, EXPOSURE = 20261120, 2026112000012


@pytest.fixture
def log(tmp_path):
    results = open_results(str(tmp_path / "results.sqlite"))
    yield NightLog(results.engine)
    results.close()


def write(log, text="", **facts):
    return log.write("LSSTCam", DAY, **({"author": "ann", "now": NOW, "text": text} | facts))


def test_an_entry_is_read_as_it_was_written(log):
    entry = write(log, "satellite\r\ntrail\x07", exposure_id=EXPOSURE, flag=Flag.QUESTIONABLE)
    assert (entry.text, entry.flag, entry.seq_num, entry.created_at) == ("satellite\ntrail", Flag.QUESTIONABLE, 12, NOW)
    assert log.entries("LSSTCam", day_obs=DAY) == [entry]
    assert log.entries("LSSTCam", exposure_id=EXPOSURE) == [entry]
    assert log.entries("LATISS", day_obs=DAY) == []


def test_what_is_taken_back_stays_in_the_history(log):
    entry = write(log, "wrong image", exposure_id=EXPOSURE)
    gone = log.retract("LSSTCam", entry.id, by="ben", now=NOW)
    assert (gone.retracted_by, gone.stands) == ("ben", False)
    assert log.entries("LSSTCam", day_obs=DAY) == []
    assert log.entries("LSSTCam", day_obs=DAY, history=True) == [gone]


def test_of_two_who_take_back_one_is_told(log):
    entry = write(log, "x")
    log.retract("LSSTCam", entry.id, by="ben", now=NOW)
    with pytest.raises(RetractedAlreadyError, match="ben"):
        log.retract("LSSTCam", entry.id, by="cat", now=NOW)


def test_a_new_wording_takes_the_old_one_back(log):
    old = write(log, "cluods", exposure_id=EXPOSURE)
    new = write(log, "clouds", exposure_id=EXPOSURE, replaces=old.id)
    assert log.entries("LSSTCam", day_obs=DAY) == [new]


def test_a_replacement_on_another_exposure_changes_nothing(log):
    old = write(log, "clouds", exposure_id=EXPOSURE)
    with pytest.raises(LogError, match="another exposure"):
        write(log, "clouds", exposure_id=EXPOSURE + 1, replaces=old.id)
    assert log.entries("LSSTCam", day_obs=DAY) == [old]


def test_an_entry_that_is_not_there_cannot_be_taken_back(log):
    with pytest.raises(NotFoundError):
        log.retract("LSSTCam", 7, by="ben", now=NOW)


@pytest.mark.parametrize(
    ("facts", "field"),
    [({"text": " \n"}, "text"), ({"text": "x" * 4001}, "text"), ({"flag": Flag.JUNK}, "flag")],
    ids=["says nothing", "too long", "flags a night"],
)
def test_what_is_not_valid_names_its_field(log, facts, field):
    with pytest.raises(LogError) as refused:
        write(log, **facts)
    assert refused.value.field == field


def test_the_newest_flag_that_stands_counts(log):
    first = write(log, flag=Flag.JUNK, exposure_id=EXPOSURE)
    second = write(log, flag=Flag.NONE, exposure_id=EXPOSURE)
    assert flags_of([first, second]) == {}
    log.retract("LSSTCam", second.id, by="ben", now=NOW)
    assert flags_of(log.entries("LSSTCam", day_obs=DAY)) == {EXPOSURE: Flag.JUNK}


def test_csv_gives_a_spreadsheet_no_formula(log):
    write(log, '=HYPERLINK("x")')
    assert "'=HYPERLINK" in as_csv(log.entries("LSSTCam", day_obs=DAY))
