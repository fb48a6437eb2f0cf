"""What is painted and written before any script runs."""

import csv
import json
from datetime import UTC, date, datetime

import pytest
from pydantic import ValidationError

from rapid.display.catalogue import tiles_with, with_derived
from rapid.display.models import ExposureRow, ExposureState
from rapid.display.night_csv import night_as_csv, safe_cell
from rapid.display.pages import boot_data, shown_day, shown_tile
from rapid.display.settings import Tolerance
from rapid.errors import ConfigurationError
from rapid.nightlog.models import Flag, LogEntry


def make_row(seq_num: int, **changes) -> ExposureRow:
    facts = {
        "exposure_id": 20261120 * 100_000 + seq_num,
        "day_obs": 20261120,
        "seq_num": seq_num,
        "image_type": "science",
        "state": ExposureState.COMPLETE,
        "pipeline": "quicklook",
        "pipelines": ["quicklook"],
        "version": 1,
        "n_finished": 9,
        "n_failed": 0,
        "n_expected": 9,
        "is_provisional": False,
    }
    return ExposureRow.model_validate(facts | changes)


def test_data_in_a_page_cannot_end_its_script_element():
    evil = {"object": "</script><script>alert(1)</script>"}
    text = boot_data(row=evil)
    assert "<" not in text
    assert json.loads(text) == {"row": evil}


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"psf_fwhm_arcsec_median": 0.8149}, "0.81"),
        ({"psf_fwhm_arcsec": 0.5}, "0.50"),
        ({"psf_fwhm_arcsec_median": None}, "—"),
        ({}, "—"),
        ({"psf_fwhm_arcsec_median": "bad"}, "—"),
    ],
    ids=["rounded", "second choice", "not measured", "nothing", "a word"],
)
def test_a_tile_is_a_number_or_a_dash(metrics, text):
    tile = next(tile for tile in tiles_with({})["sky"] if tile.id == "seeing")
    assert shown_tile(tile, metrics) == text


def test_a_tolerance_says_who_set_it_and_why():
    band = Tolerance(high=1.2, why="beyond this the sources blend", set_by="Ann", since="2026-11-01")
    tile = next(tile for tile in tiles_with({"seeing": band})["sky"] if tile.id == "seeing")
    assert (tile.high, tile.why, tile.set_by, tile.since) == (1.2, "beyond this the sources blend", "Ann", "2026-11-01")


def test_a_band_of_a_tile_that_there_is_none_of_is_refused_by_its_name():
    with pytest.raises(ConfigurationError, match=r"tolerances\.seing.*known: .*seeing"):
        tiles_with({"seing": Tolerance(high=1.2, why="a slip of the pen")})


@pytest.mark.parametrize(
    "band",
    [{"why": "no limit"}, {"low": 2, "high": 1, "why": "turned round"}, {"high": 1}, {"high": 1, "why": ""},
     {"high": float("nan"), "why": "no number"}, {"high": "much", "why": "a word"}, {"hihg": 1, "why": "misspelt"}],
)  # fmt: skip
def test_a_band_that_makes_no_sense_is_refused(band):
    with pytest.raises(ValidationError):
        Tolerance.model_validate(band)


def test_a_bare_date_of_yaml_is_taken():
    assert Tolerance.model_validate({"high": 1, "why": "w", "since": date(2026, 11, 1)}).since == "2026-11-01"


def test_ellipticity_is_the_length_of_its_components():
    assert with_derived({"psf_e1": 0.03, "psf_e2": -0.04})["psf_e"] == pytest.approx(0.05)


def test_a_day_is_shown_with_dashes():
    assert (shown_day(20261120), shown_day(None)) == ("2026-11-20", "—")


def test_a_csv_has_a_column_for_every_metric_and_no_formula():
    rows = [make_row(2, metrics={"b": 2.0}), make_row(1, metrics={"a": None}, object_name="=HYPERLINK(1)")]
    header, first, second = night_as_csv(rows).splitlines()
    assert header.endswith("n_expected,n_excluded,n_later,n_excluded_amps,flag,comments,a,b")
    assert first.startswith("2026112000001,20261120,1,science,,'=HYPERLINK(1)")
    assert second.endswith(",9,0,9,0,0,0,,,,2.0")


def test_a_csv_has_what_observers_said():
    def said(number, **more):
        when = datetime(2026, 11, 21, 4, number, tzinfo=UTC)
        return LogEntry(id=number, camera="LSSTCam", day_obs=20261120, author="ann", created_at=when, **more)

    log = [
        said(1, exposure_id=2026112000001, text="satellite\ntrail", flag=Flag.QUESTIONABLE),
        said(2, exposure_id=2026112000001, text="=two of them"),
        said(3, text="the wind rises"),  # of the night: no line's
    ]
    rows = [make_row(2), make_row(1)]
    first, second = csv.DictReader(night_as_csv(rows, log).splitlines())
    assert (first["flag"], first["comments"]) == ("questionable", "ann: satellite trail | ann: =two of them")
    assert (second["flag"], second["comments"]) == ("", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@x", "\tx"])
def test_cells_a_spreadsheet_would_run_are_quoted(text):
    assert safe_cell(text) == f"'{text}"
