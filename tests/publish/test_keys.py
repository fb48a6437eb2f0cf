"""Keys as RubinTV parses them."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapid.publish.keys import (
    EVENT,
    FINAL,
    REPORT_PLOT,
    REPORT_TEXT,
    date_of,
    day_obs_of,
    image_key,
    is_readable,
    metadata_key,
    report_plot_key,
    report_text_key,
)

WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(lambda word: "night_report" not in word)
DAYS = st.dates().filter(lambda day: day.year >= 2000).map(lambda day: int(day.strftime("%Y%m%d")))


def proxied(camera: str, channel: str, filename: str) -> str:
    """Return the key RubinTV's image proxy makes of a file's name (``handlers/proxies.py``)."""
    rest = filename.replace(f"{camera}_{channel}_", "")
    date, number_and_ending = rest.split("_")
    number, _ending = number_and_ending.split(".")
    return f"{camera}/{date}/{channel}/{number}/{filename}"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(camera=WORDS, channel=WORDS, day=DAYS, number=st.integers(0, 999_999) | st.just(FINAL))
def test_an_image_is_found_again_from_its_files_name(camera, channel, day, number):
    key = image_key(camera, day, channel, number, "png")

    match = EVENT.match(key)
    assert match is not None
    assert match[1] == camera
    assert match[2] == date_of(day)
    assert match[3] == channel
    assert match[4] == (FINAL if number == FINAL else f"{number:06d}")
    filename = key.rpartition("/")[2]
    # A camera's name that comes again in the rest of the file's name is a case of its own, below.
    if filename.count(f"{camera}_{channel}_") == 1:
        assert proxied(camera, channel, filename) == key
    assert is_readable(key)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(day=DAYS)
def test_a_day_survives_the_way_to_rubintv_and_back(day):
    assert day_obs_of(date_of(day)) == day


@pytest.mark.parametrize(
    ("camera", "channel", "number", "ending"),
    [
        ("lsst-cam", "mosaic", 1, "png"),
        ("lsstcam", "focal plane", 1, "png"),
        ("lsstcam", "fp/../x", 1, "png"),
        ("lsstcam", "night_report_images", 1, "png"),
        ("lsstcam", "mosaic", 1_000_000, "png"),
        ("lsstcam", "mosaic", -1, "png"),
        ("lsstcam", "mosaic", "last", "png"),
        ("lsstcam", "mosaic", 1, "tar.gz"),
        ("lsstcam", "mosaïque", 1, "png"),
        ("", "mosaic", 1, "png"),
    ],
)
def test_what_rubintv_would_misread_is_refused(camera, channel, number, ending):
    with pytest.raises(ValueError, match="RubinTV"):
        image_key(camera, 20261120, channel, number, ending)


def test_no_date_is_refused():
    with pytest.raises(ValueError, match="month must be"):
        metadata_key("lsstcam", 20261320)


def test_a_report_has_one_text_and_plots_in_groups():
    text = report_text_key("lsstcam", 20261120)
    plot = report_plot_key("lsstcam", 20261120, "Image-quality", "seeing")

    assert REPORT_TEXT.match(text)
    assert REPORT_TEXT.match(plot) is None
    assert REPORT_PLOT.match(plot)[3] == "Image-quality"
    rest = plot.rpartition("/")[2].replace("lsstcam_night_report_", "")
    assert rest.split("_")[0] == "2026-11-20"
    assert len(rest.split(".")) == 2
    assert EVENT.match(text) is None
    with pytest.raises(ValueError, match="texts"):
        report_plot_key("lsstcam", 20261120, "group", "seeing_md", "json")


@pytest.mark.parametrize(
    "key",
    [
        "lsstcam/2026-11-20/extra/metadata.json",
        "lsstcam/2026-11-20/other_metadata.json",
        "lsstcam/2026-11-20/night_report/plot.png",
        "lsstcam/2026-11-20/mosaic/12/x.png",
        "lsstcam/2026-11-20/mosaic/000012/a.b.png",
    ],
)
def test_keys_of_others_are_not_taken_for_ours(key):
    assert not is_readable(key)


def test_the_patterns_are_those_of_the_documented_layout():
    assert EVENT.pattern == r"(\w+)\/([\d-]+)\/(\w+)\/(\d{6}|final)\/([\w-]+)\.(\w+)$"
    assert re.fullmatch(r"\w+/[\d-]+/metadata\.json", metadata_key("lsstcam", 20261120))
