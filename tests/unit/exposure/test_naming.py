"""Names of raws, old and new, are read; what is no raw is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.exposure.naming import (
    exposure_id_for,
    is_expected_sensors,
    make_obs_id,
    parse_expected_sensors,
    parse_raw_name,
    raw_key,
)


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("LSSTCam/20251115/MC_O_20251115_000226/MC_O_20251115_000226_R22_S11.fits",
         {"obs_id": "MC_O_20251115_000226", "exposure_id": 2025111500226, "detector_name": "R22_S11"}),
        ("MC_O_20251115_000226_R00_SG0_guider.fits", {"detector_name": "R00_SG0", "is_guider": True}),
        ("s3://bucket/AT_O_20240624_000106_R00_S00.fits.fz", {"code": "AT", "exposure_id": 2024062400106}),
        ("3019031900001-R10-S02-det029.fits",
         {"exposure_id": 3019031900001, "detector_name": "R10_S02", "detector": 29}),
        ("7024032100720-R22-S11-det094.fits.fz", {"exposure_id": 7024032100720, "detector": 94}),
        ("3018092000065-det000.fits.gz", {"exposure_id": 3018092000065, "detector": 0}),
        ("30211212000310-R22-S22-det098.fits", {"exposure_id": None, "detector_name": "R22_S22", "detector": 98}),
        ("201807241028453-RTM-010-S11-det067.fits", {"exposure_id": None, "detector": None}),
        ("MC_C_20181221_001053_R22_S00.fits", {"controller": "C", "exposure_id": 3018122101053}),
        ("ITL-3800C-145-Dev_bias_bias_00_5800D.fits", {"obs_id": None, "detector_name": None}),
    ],
    ids=["the summit's", "a guider's", "AuxTel's, compressed", "a 2019 archive's", "the simulator's", "no raft",
         "six digits", "a test stand's", "a run's", "a vendor's: the header decides"],
)  # fmt: skip
def test_names_tell_what_they_tell(path, facts):
    name = parse_raw_name(path)
    assert {key: getattr(name, key) for key in facts} == facts


@pytest.mark.parametrize(
    "path",
    ["MC_O_20251115_000226.json", ".MC_O_20251115_000226_R22_S11.fits.part", "notes.txt", "", "x/.hidden.fits", "fits"],
)
def test_what_is_no_raw_by_its_name_gives_none(path):
    assert parse_raw_name(path) is None


@given(st.text(max_size=80))
def test_any_path_is_read_or_not_but_never_leads_anywhere(path):
    name = parse_raw_name(path + ".fits")
    for text in (name.obs_id, name.detector_name) if name else ():
        assert text is None or not set(text) & set("/\\. \0")


@pytest.mark.parametrize(
    ("controller", "day_obs", "year"),
    [
        ("O", 20190319, 2019), ("C", 20190319, 3019), ("C", 20231004, 3023), ("C", 20231005, 2023),
        ("H", 20100217, 4010), ("P", 20240117, 5024), ("P", 20250418, 2025), ("Q", 20250417, 6025),
        ("S", 20240321, 7024), ("S", 20250418, 2025), ("H", 20260101, 4026),
    ],
)  # fmt: skip
def test_controllers_add_a_thousand_years_until_their_counters_were_unified(controller, day_obs, year):
    assert exposure_id_for(controller, day_obs, 7) == (year * 10_000 + day_obs % 10_000) * 100_000 + 7


def test_a_key_is_read_back_as_it_was_made():
    key = raw_key("LSSTCam", make_obs_id("MC", "O", 20251115, 226), "R00_SG0", guider=True)
    assert key == "LSSTCam/20251115/MC_O_20251115_000226/MC_O_20251115_000226_R00_SG0_guider.fits"
    name = parse_raw_name(key)
    assert (name.seq_num, name.detector_name, name.is_guider) == (226, "R00_SG0", True)


@pytest.mark.parametrize(
    "sensors",
    [["R22_S11", "R00_SG0"], {"R22_S11": "ScienceSensor", "R00_SG0": "guider"}, ["R22/S11", "R00-SG0"]],
    ids=["a list", "a mapping by name", "other separators"],
)
def test_expected_sensors_may_be_a_list_or_a_mapping(sensors):
    assert parse_expected_sensors({"expectedSensors": sensors}) == {"R22_S11", "R00_SG0"}
    assert is_expected_sensors("x/MC_O_20251115_000226_expectedSensors.json")


@pytest.mark.parametrize(
    "document", [{}, [], None, {"expectedSensors": 9}, {"expectedSensors": [1]}, {"expectedSensors": ["x"]}]
)
def test_an_unreadable_list_of_sensors_is_refused(document):
    with pytest.raises(ValueError, match="expectedSensors"):
        parse_expected_sensors(document)
