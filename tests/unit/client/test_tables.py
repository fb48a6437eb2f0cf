"""Tables of what a display says: columns, units, what is missing, and what an error becomes."""

import math

import astropy.units as u
import numpy as np
import pytest

from rapid.client_tables import RapidData, as_frame, make_table
from rapid.errors import ConfigurationError, StoreError

ROWS = [
    {"seq_num": 1, "name": "R22_S11", "psf_fwhm_arcsec_median": 0.8, "begin": "2026-11-21T03:00:00", "ok": True},
    {"seq_num": 2, "name": None, "psf_fwhm_arcsec_median": None, "begin": None, "ok": False},
    {"seq_num": 3, "name": "R22_S12", "psf_fwhm_arcsec_median": 1, "begin": "2026-11-21T03:01:00", "ok": None},
]


@pytest.fixture
def table():
    return make_table(ROWS, first=("seq_num", "name"), units={"psf_fwhm_arcsec": "″"})


def test_columns_that_come_first_stand_first_and_the_others_by_name(table):
    assert table.colnames == ["seq_num", "name", "begin", "ok", "psf_fwhm_arcsec_median"]


def test_what_was_not_measured_is_masked(table):
    fwhm = table["psf_fwhm_arcsec_median"]
    assert list(fwhm.mask) == [False, True, False]
    assert fwhm.max() == 1.0
    assert list(table["name"].mask) == [False, True, False]
    assert list(table["ok"].mask) == [False, False, True]


def test_a_number_that_is_not_finite_is_masked():
    found = make_table([{"x_px": math.nan}, {"x_px": 2.0}], first=(), units={})
    assert list(found["x_px"].mask) == [True, False]


def test_types_follow_the_values(table):
    assert table["seq_num"].dtype == np.int64
    assert table["psf_fwhm_arcsec_median"].dtype == np.float64
    assert table["begin"].dtype == np.dtype("datetime64[us]")
    assert table["ok"].dtype == bool


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("psf_fwhm_arcsec_median", u.arcsec),
        ("focus_offset_error_um", u.um),
        ("sky_level_e", u.electron),
        ("gain_electron_per_adu", u.electron / u.adu),
        ("zero_point_mag_scatter", u.mag),
        ("sky_brightness_mag_arcsec2", u.mag / u.arcsec**2),
        ("psf_e", None),
        ("n_stars", None),
    ],
    ids=[
        "of the catalogue",
        "error of a length",
        "electrons",
        "gain",
        "magnitudes",
        "surface brightness",
        "ellipticity",
        "a count",
    ],
)
def test_units_come_from_the_catalogue_or_the_name(name, unit):
    assert make_table([{name: 1.5}], first=(), units={"psf_fwhm_arcsec": "″"})[name].unit == unit


def test_a_table_without_rows_has_its_columns():
    found = make_table([], first=("exposure_id", "seq_num"), units={})
    assert len(found) == 0
    assert found.colnames == ["exposure_id", "seq_num"]


def test_a_frame_keeps_units_and_what_is_missing(table):
    frame = as_frame(table)
    assert frame.attrs["units"] == {"psf_fwhm_arcsec_median": "arcsec"}
    assert list(frame["psf_fwhm_arcsec_median"].isna()) == [False, True, False]


@pytest.mark.parametrize("url", ["display:8080", "ftp://display", "", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError, match="no address of a display"):
        RapidData(url)


def test_a_display_that_is_away_is_an_error_that_says_where(unused_tcp_port_factory):
    data = RapidData(f"http://127.0.0.1:{unused_tcp_port_factory()}", timeout_s=5.0)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1"):
        data.nights()
