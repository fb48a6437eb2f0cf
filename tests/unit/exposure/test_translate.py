"""Headers of eight years become the same facts."""

import math
from datetime import datetime

import pytest
from raw_headers import lsstcam_header

from rapid.camera.store import load_camera
from rapid.errors import HeaderError, WrongCameraError
from rapid.exposure.identity import tell_ccd_type
from rapid.exposure.models import ImageType
from rapid.exposure.naming import parse_raw_name
from rapid.exposure.translate import band_of, image_type_of, translate


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def latiss_header(**changes):
    header = {
        "INSTRUME": "LATISS", "OBSID": "AT_O_20240624_000106", "CONTRLLR": "O", "DAYOBS": "20240624", "SEQNUM": 106,
        "DATE-BEG": "2024-06-25T01:00:00", "EXPTIME": 15.0, "IMGTYPE": "OBJECT", "FILTER": "SDSSr_65mm",
        "GRATING": "empty_1",
    }  # fmt: skip
    return {key: value for key, value in {**header, **changes}.items() if value is not ...}


def test_a_science_exposure_reads_with_all_its_facts():
    info = translate(lsstcam_header())
    assert (info.camera, info.exposure_id, info.obs_id) == ("LSSTCam", 2025111500226, "MC_O_20251115_000226")
    assert (info.detector, info.detector_name, info.is_guider) == (94, "R22_S11", False)
    assert info.image_type is ImageType.SCIENCE
    assert (info.physical_filter, info.band) == ("r_57", "r")
    assert info.begin == when("2025-11-16T03:00:10")
    assert info.exposure_time_s == 30.001
    assert (info.ra_deg, info.dec_deg, info.elevation_deg, info.airmass) == (150.1, 2.2, 60.0, 1.155)
    assert (info.focus_z_mm, info.pressure_pa, info.humidity_percent) == (-1.5, 74300.0, 20.0)
    assert (info.can_see_sky, info.simulated) == (True, False)


@pytest.mark.parametrize(
    ("header", "camera", "exposure_id", "detector"),
    [
        ({"INSTRUME": "lsstCam", "OBSID": "MC_C_20190319_000001", "DAYOBS": "20190319", "SEQNUM": 1, "CONTRLLR": "C",
          "RAFTBAY": "R10", "CCDSLOT": "S02"}, "LSSTCam", 3019031900001, 29),
        ({"INSTRUME": "LSSTCamSim", "OBSID": "MC_S_20240321_000720", "DAYOBS": 20240321, "SEQNUM": "720",
          "CHIPID": "R22_S11"}, "LSSTCam", 7024032100720, 94),
        ({"INSTRUME": "LSSTCam", "OBSID": "MC_S_20250418_000007", "RAFTBAY": "R22", "CCDSLOT": "S11"},
         "LSSTCam", 2025041800007, 94),
        ({"INSTRUME": "LSST_CAMERA", "TELCODE": "CC", "OBSID": "CC_C_20190530_000001", "RAFTBAY": "R22",
          "CCDSLOT": "S00"}, "LSSTComCam", 3019053000001, 0),
        ({"INSTRUME": "ComCam", "OBSID": "CC_O_20241108_000266", "RAFTBAY": "R22", "CCDSLOT": "S20"},
         "LSSTComCam", 2024110800266, 6),
        ({"INSTRUME": "LSST_ATISS", "OBSID": "AT_C_20180920_000065", "DATE-OBS": "2018-09-21T06:12:18.210"},
         "LATISS", 3018092000065, 0),
        ({"CAMCODE": "MC", "DAYOBS": "2025-11-15", "SEQNUM": 9.0, "CONTRLLR": "O", "CHIPID": "R01-S22"},
         "LSSTCam", 2025111500009, 8),
        ({"TSTAND": "TS8", "DATE-OBS": "2018-07-24T10:28:45.342", "SEQNUM": 17, "LSST_NUM": "E2V-CCD250-179-Dev",
          "RAFTNAME": "LCA-11021_RTM-010-Dev"}, "LSST-TS8", 201807241028453, 4),
        ({"INSTRUME": "LSST-TS8", "OBSID": "TS_C_20230525_000041", "DAYOBS": "20230525", "SEQNUM": 41, "CONTRLLR": "C",
          "DATE-OBS": "2023-05-25T20:00:00", "RAFTBAY": "R37", "CCDSLOT": "S12"}, "LSST-TS8", 3023052500041, 5),
        ({"INSTRUME": "LSST-UCDCam-ITL", "OBSID": "TS_C_20230730_000237", "RAFTBAY": "R22", "CCDSLOT": "S01"},
         "LSST-UCDCam", 3023073000237, 1),
    ],
    ids=["LSSTCam on its stand 2019", "the 2024 simulator, numbers as text", "S after the counters were unified",
         "ComCam under LSSTCam's name", "ComCam on the sky", "AuxTel 2018", "no INSTRUME and no OBSID",
         "a raft on test stand 8 by date and serial", "test stand 8 by obs id, any raft", "UC Davis"],
)  # fmt: skip
def test_camera_exposure_and_detector_are_told_from_every_style(header, camera, exposure_id, detector):
    info = translate({"IMGTYPE": "FLAT", **header})
    assert (info.camera, info.exposure_id, info.detector) == (camera, exposure_id, detector)


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("BIAS", "bias"), ("Dark", "dark"), ("flat", "flat"), ("FLAT_R", "flat"), ("SKYEXP", "science"),
        ("OBJECT", "science"), ("science", "science"), ("ACQ", "acq"), ("FOCUS", "focus"), ("cwfs", "cwfs"),
        ("ENGTEST", "engtest"), ("SPOT_FLAT", "spot"), ("stuttered", "stuttered"), ("PPUMP", "engtest"),
        ("FE55", "engtest"), ("bias_0001_0002", "bias"), ("", "unknown"), ("gibberish", "unknown"), (None, "unknown"),
    ],
)  # fmt: skip
def test_image_types_are_told_in_any_spelling(spelling, expected):
    assert image_type_of(spelling).value == expected


def test_the_next_key_tells_the_image_type_where_the_first_says_unknown():
    assert translate(lsstcam_header(IMGTYPE="UNKNOWN", TESTTYPE="DARK")).image_type is ImageType.DARK
    assert translate(lsstcam_header(IMGTYPE=..., OBSTYPE="FLAT")).image_type is ImageType.FLAT


@pytest.mark.parametrize("nothing", [None, "", "NaN", float("nan"), "n/a", True, float("inf"), 1e300])
def test_nonsense_in_an_optional_key_is_none(nothing):
    info = translate(
        lsstcam_header(
            EXPTIME=nothing, SHUTTIME=nothing, DARKTIME=nothing, RASTART=nothing, ELSTART=nothing, AMSTART=nothing,
            FOCUSZ=nothing, AIRTEMP=nothing, PRESSURE=nothing, HUMIDITY=nothing, SEEING=nothing, ROTPA=nothing,
            CURINDEX=nothing,
        )
    )  # fmt: skip
    assert (info.exposure_time_s, info.ra_deg, info.dec_deg, info.airmass) == (None, None, None, None)
    assert (info.focus_z_mm, info.temperature_c, info.pressure_pa, info.humidity_percent) == (None,) * 4
    assert (info.seeing_arcsec, info.rotator_angle_deg, info.group_index) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "name", "key"),
    [
        ({"OBSID": ..., "SEQNUM": ...}, None, "SEQNUM"),
        ({"OBSID": ..., "DAYOBS": ..., "DATE-BEG": ...}, None, "DAYOBS"),
        ({"CONTRLLR": "X"}, None, "CONTRLLR"),
        ({"SEQNUM": 123456}, "MC_O_20251115_123456_R22_S11.fits", "SEQNUM"),
        ({"RAFTBAY": ..., "LSST_NUM": ...}, None, "RAFTBAY, CCDSLOT"),
        ({"RAFTBAY": "R99", "LSST_NUM": ...}, None, "RAFTBAY, CCDSLOT"),
    ],
    ids=["no number", "no day", "an unknown controller", "a number of six digits", "no raft", "a raft not there"],
)
def test_what_is_needed_and_missing_is_named(changes, name, key):
    header = lsstcam_header(**changes)
    if changes.get("SEQNUM") == 123456:
        header["OBSID"] = "MC_O_20251115_123456"
    with pytest.raises(HeaderError) as caught:
        translate(header, name=parse_raw_name(name) if name else None)
    assert caught.value.field == key


def test_the_name_of_the_file_fills_what_the_header_lacks():
    header = lsstcam_header(OBSID=..., DAYOBS=..., SEQNUM=..., CONTRLLR=..., RAFTBAY=..., CCDSLOT=..., LSST_NUM=...)
    info = translate(header, name=parse_raw_name("MC_C_20251115_000226_R01_S00.fits"))
    assert (info.exposure_id, info.controller, info.detector_name) == (2025111500226, "C", "R01_S00")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"INSTRUME": "LATISS"}, "LATISS"),
        ({"INSTRUME": "LSST_CAMERA", "CAMCODE": "CC"}, "CC"),
        ({"INSTRUME": "DECam"}, "DECam"),
        ({"INSTRUME": None, "CAMCODE": "AT"}, "AT"),
    ],
)
def test_a_raw_of_another_camera_is_refused_and_says_whose_it_is(changes, told):
    with pytest.raises(WrongCameraError, match=f"this raw is of {told}, not of LSSTCam"):
        translate(lsstcam_header(**changes), camera=load_camera("LSSTCam"))


def test_a_raw_of_no_known_camera_is_refused():
    with pytest.raises(WrongCameraError, match="DECam"):
        translate(lsstcam_header(INSTRUME="DECam"))
    with pytest.raises(WrongCameraError, match="does not tell"):
        translate({"IMGTYPE": "BIAS"})


@pytest.mark.parametrize(
    ("changes", "begin", "end"),
    [
        ({}, "2025-11-16T03:00:10", "2025-11-16T03:00:40"),
        ({"DATE-BEG": ..., "MJD-BEG": 60995.125, "DATE-END": ...}, "2025-11-16T03:00:00", "2025-11-16T03:00:30.001"),
        ({"TIMESYS": "UTC"}, "2025-11-16T03:00:47", "2025-11-16T03:01:17"),
        ({"DATE-BEG": "1970-01-01T00:00:00", "DATE-OBS": "2025-11-16T03:00:10"}, "2025-11-16T03:00:10",
         "2025-11-16T03:00:40"),
        ({"DATE-END": "2025-11-15T00:00:00"}, "2025-11-16T03:00:10", "2025-11-16T03:00:40.001"),
        ({"DATE-BEG": "9999-12-31T23:59:59", "TIMESYS": "UTC", "DATE-END": ...}, None, None),
    ],
    ids=["as written", "by MJD, end from the exposure time", "UTC becomes TAI", "a clock at 1970 is passed over",
         "an end before its begin", "the end of the calendar"],
)  # fmt: skip
def test_dates_are_tai(changes, begin, end):
    info = translate(lsstcam_header(**changes))
    assert info.begin == (begin and when(begin))
    assert info.end == (end and when(end))


def test_the_day_is_told_by_the_date_where_nothing_else_tells():
    header = lsstcam_header(OBSID=..., DAYOBS=..., **{"DATE-BEG": "2025-11-16T12:00:36"})
    assert translate(header).day_obs == 20251115
    assert translate({**header, "DATE-BEG": "2025-11-16T12:00:38"}).day_obs == 20251116


def test_airmass_follows_from_elevation_where_it_is_missing():
    assert translate(lsstcam_header(AMSTART=None)).airmass == pytest.approx(1 / math.sin(math.radians(60)))
    assert translate(lsstcam_header(AMSTART=0.2, ELSTART=90.0)).airmass == 1.0
    assert translate(lsstcam_header(AMSTART=None, ELSTART=-3.0)).airmass is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"VIGN_MIN": "FULLY"}, False), ({"VIGN_MIN": "PARTIALLY"}, True), ({"VIGN_MIN": "UNKNOWN"}, None),
        ({"VIGN_MIN": None}, None), ({"SHUTTIME": 0.0, "VIGN_MIN": "NO"}, False),
        ({"VIGN_MIN": None, "IMGTYPE": "BIAS"}, False),
        ({"DAYOBS": "20231107", "OBSID": "MC_C_20231107_000078", "CONTRLLR": "C"}, False),
    ],
    ids=["fully vignetted", "partially", "unknown", "undefined", "a shutter that stayed shut", "a bias",
         "in the laboratory"],
)  # fmt: skip
def test_whether_the_sky_was_seen(changes, expected):
    assert translate(lsstcam_header(**changes)).can_see_sky is expected


@pytest.mark.parametrize(
    ("changes", "physical_filter", "band"),
    [
        ({"FILTER": "i_39", "FILTER1": "empty_2"}, "i_39", "i"),
        ({"FILTER": None}, None, None),
        ({"FILTER": ..., "FILTER1": "ND_OD1.0", "FILTER2": "empty"}, "ND_OD1.0", None),
        ({"FILTER": "ph_05"}, "ph_5", "white"),
        ({"FILTER": "SDSSi"}, "SDSSi", "i"),
    ],
)
def test_filters_and_bands(changes, physical_filter, band):
    info = translate(lsstcam_header(**changes))
    assert (info.physical_filter, info.band) == (physical_filter, band)


def test_band_of_a_word_that_only_begins_like_one_is_none():
    assert band_of("red") is None
    assert band_of("ultraviolet") is None


def test_latiss_joins_filter_and_grating():
    assert translate(latiss_header()).physical_filter == "SDSSr_65mm~empty"
    info = translate(latiss_header(FILTER="empty_1", GRATING="holo4_003"))
    assert (info.physical_filter, info.band) == ("empty~holo4_003", "white")


@pytest.mark.parametrize(
    ("date", "changes", "fact", "expected"),
    [
        ("2019-10-01T01:00:00", {"IMGTYPE": ..., "GROUPID": "DARK_0001_0002"}, "image_type", ImageType.DARK),
        ("2019-12-01T01:00:00", {"IMGTYPE": "OBJECT"}, "image_type", ImageType.ENGTEST),
        ("2020-01-01T01:00:00", {"IMGTYPE": "SKYEXP", "RA": 1.0, "DEC": 0.5}, "ra_deg", math.degrees(1.0)),
        ("2021-01-01T01:00:00", {"RASTART": 2.0, "DECSTART": 1.0}, "ra_deg", 30.0 + 37 / 240),
        ("2021-01-01T01:00:00", {"ROTPA": 200.0}, "rotator_angle_deg", 20.0),
        ("2019-12-01T01:00:00", {"LSST_NUM": "ITL-3800C-098"}, "detector_serial", "ITL-3800C-068"),
    ],
    ids=["type in GROUPID", "OBJECT was a test", "radians", "hours", "rotator turned round", "CCD was changed"],
)
def test_what_latiss_wrote_wrong_in_its_first_years_is_put_right(date, changes, fact, expected):
    day = date[:10].replace("-", "")
    header = latiss_header(**{"DATE-BEG": date, "DAYOBS": day, "OBSID": f"AT_O_{day}_000106", **changes})
    found = getattr(translate(header), fact)
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_known_wrong_headers_of_lsstcam_are_put_right():
    def night(day: int, seq_num: int, **changes):
        obs_id = f"MC_O_{day}_{seq_num:06d}"
        return translate(lsstcam_header(DAYOBS=str(day), SEQNUM=seq_num, OBSID=obs_id, **changes))

    assert night(20250609, 100).physical_filter == "z_20"
    assert night(20250609, 579).physical_filter == "r_57"
    assert night(20250705, 5).can_see_sky is False
    assert night(20250415, 5, ROTPA=100.0).rotator_angle_deg == 10.0
    assert night(20250422, 250, ROTPA=100.0).rotator_angle_deg == -80.0
    assert night(20250423, 5, PROGRAM="BLOCK-417").program == "BLOCK-T417"


def test_pointing_needs_both_angles_and_a_telescope_that_follows():
    assert translate(lsstcam_header(TRACKSYS="AZEL")).ra_deg is None
    assert translate(lsstcam_header(DECSTART="NaN", RA=10.0, DEC=-20.0)).ra_deg == 10.0
    text = translate(lsstcam_header(RASTART="10:00:00.0", DECSTART="-02:30:00"))
    assert (text.ra_deg, text.dec_deg) == (150.0, -2.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"HIERARCH": 0, "SIMULATE MTDOME": 1},
        {"CONTRLLR": "S", "OBSID": "MC_S_20251115_000226"},
        {"INSTRUME": "LSSTCamSim"},
    ],
    ids=["a simulated dome", "controller S", "a simulated camera"],
)
def test_simulated_exposures_say_so(changes):
    assert translate(lsstcam_header(**changes)).simulated
    assert not translate(lsstcam_header(**{"SIMULATE MTDOME": "0"})).simulated


@pytest.mark.parametrize(
    ("header", "segment", "kind"),
    [
        ({"CCD_MANU": "E2V"}, {}, "E2V"), ({"LSST_NUM": "ITL-3800C-145-Dev"}, {}, "ITL"),
        ({}, {"DATASEC": "[11:522, 1:2002]"}, "E2V"), ({}, {}, None),
    ],
)  # fmt: skip
def test_the_kind_of_ccd_is_told(header, segment, kind):
    assert tell_ccd_type(header, segment) == kind
