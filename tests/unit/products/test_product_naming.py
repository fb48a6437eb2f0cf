"""Keys of products."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.products.naming import detector_key, is_safe_key, safe_part, summary_key

FACTS = {
    "camera": "LSSTCam",
    "exposure": 2025111500226,
    "day_obs": 20251115,
    "seq_num": 226,
    "run": "prompt",
    "pipeline": "quicklook",
}


def test_a_detectors_key():
    result = SimpleNamespace(**FACTS, detector_name="R22_S11")
    key = detector_key(result, kind="binned", extension="fits")
    assert key == "LSSTCam/20251115/000226/prompt/quicklook/R22_S11.binned.fits"


@pytest.mark.parametrize(
    ("kind", "extension", "name"),
    [("summary", "json", "summary.v2.json"), ("mosaic", "jpg", "mosaic.v2.jpg")],
)
def test_a_summarys_keys_carry_its_version(kind, extension, name):
    summary = SimpleNamespace(**FACTS, version=2)
    key = summary_key(summary, kind=kind, extension=extension)
    assert key == f"LSSTCam/20251115/000226/prompt/quicklook/{name}"


def test_two_controllers_exposures_of_one_day_and_number_have_keys_of_their_own():
    keys = {
        summary_key(SimpleNamespace(**{**FACTS, "exposure": exposure, "day_obs": 20240321}, version=1))
        for exposure in (2024032100226, 7024032100226)
    }
    assert len(keys) == 2


def test_a_kind_with_a_slash_is_refused():
    with pytest.raises(ValueError, match="not a product key"):
        detector_key(SimpleNamespace(**FACTS, detector_name="R22_S11"), kind="../../x", extension="fits")


@given(st.text())
def test_any_word_becomes_a_safe_part(text):
    assert is_safe_key(safe_part(text)[:100])
