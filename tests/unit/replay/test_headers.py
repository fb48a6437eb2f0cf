"""Headers of a night as text: each card said once, and every raw gets its own back."""

import io

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from rapid.errors import ConfigurationError
from replay.fits_writer import header
from replay.headers import NightHeaders, RawFacts

DETECTORS = ("R22_S11", "R22_S12")


def facts_of(exposure: int, detector: str, **more: object) -> RawFacts:
    obs_id = f"MC_O_20261120_{exposure:06d}"
    values = {"INSTRUME": "LSSTCam", "OBSID": obs_id, "FILENAME": f"{obs_id}_{detector}.fits", "CCDSLOT": detector[4:]}
    return RawFacts(exposure, obs_id, detector, values | more)


def night() -> list[RawFacts]:
    return [
        facts_of(exposure, detector, EXPTIME=30.0 * exposure, TEMP=exposure + place / 10, SERIAL=f"E2V-{place}")
        for exposure in (1, 2)
        for place, detector in enumerate(DETECTORS)
    ]


def test_a_key_is_said_once_where_it_belongs():
    headers = NightHeaders.of(night())
    assert headers.night["INSTRUME"] == "LSSTCam"
    assert headers.night["FILENAME"] == "{obs_id}_{detector}.fits"
    assert headers.detectors["R22_S12"] == {"CCDSLOT": "S12", "SERIAL": "E2V-1"}
    assert headers.exposures[2] == {"EXPTIME": 60.0}
    assert headers.raws[2, "R22_S12"] == {"TEMP": 2.1}


def test_every_raw_gets_its_own_header_back_from_the_text():
    raws = [*night(), facts_of(3, "R22_S11", EXTRA=True, GONE=None)]
    headers = NightHeaders.of(raws)
    read = NightHeaders.from_text(headers.to_text(), headers.order)
    assert read == headers
    for raw in raws:
        found = read.header_of(raw.exposure, raw.obs_id, raw.detector)
        assert found == raw.header
        assert list(found) == [key for key in headers.order if key in raw.header]


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=150).map(str.rstrip).filter(
        lambda text: "{" not in text and "}" not in text
    ),
)  # fmt: skip
names = st.sampled_from(["A", "FILTER", "LONGNAME", "HIER KEY", "DATE-OBS", "low"])


@given(st.lists(st.dictionaries(names, values, max_size=6), min_size=1, max_size=6))
def test_whatever_a_header_says_is_said_again(cards):
    raws = [RawFacts(1 + place // 2, "MC_O_1", DETECTORS[place % 2], one) for place, one in enumerate(cards)]
    headers = NightHeaders.of(raws)
    read = NightHeaders.from_text(headers.to_text(), headers.order)
    for raw in raws:
        found = read.header_of(raw.exposure, raw.obs_id, raw.detector)
        assert found == raw.header
        assert [type(value) for value in found.values()] == [type(raw.header[key]) for key in found]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("[night]\nA = what", "line 2", id="no value"),
        pytest.param("[night]\nA = 'open", "line 2", id="an open text"),
        pytest.param("[exposure x]", "line 1", id="no exposure"),
        pytest.param("[raw 1]", "line 1", id="half a name"),
        pytest.param("gibberish", "line 1", id="no card"),
    ],
)
def test_a_mistake_in_the_text_names_its_line(text, line):
    with pytest.raises(ConfigurationError, match=line):
        NightHeaders.from_text(text)


def test_astropy_reads_long_texts_and_long_names_as_they_were():
    text = "it's a long story, " * 20
    data = header(
        [("SIMPLE", True, ""), ("BITPIX", 8, ""), ("NAXIS", 0, ""), ("STORY", text, ""), ("Hier arch", 3, "")]
    )
    read = fits.Header.fromfile(io.BytesIO(data))
    assert read["STORY"].rstrip() == text.rstrip()
    assert read["HIER ARCH"] == 3
