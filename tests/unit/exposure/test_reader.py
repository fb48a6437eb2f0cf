"""Real raws are read right, whole; wrong ones give one exact reason."""

from pathlib import Path

import pytest
from raw_headers import header_bytes, lsstcam_header, raw_bytes

from rapid.camera.store import load_camera
from rapid.errors import CorruptRawError, TruncatedRawError, WrongCameraError
from rapid.exposure.models import ImageType
from rapid.exposure.reader import read_info

DATA = Path(__file__).resolve().parents[3].parent / "shared/data"

FACTS = {
    "3018092000065-det000.fits": ("LATISS", 3018092000065, 0, ImageType.UNKNOWN, 16),
    "3019031900001-R10-S02-det029.fits": ("LSSTCam", 3019031900001, 29, ImageType.BIAS, 16),
    "7024032100720-R22-S11-det094.fits.fz": ("LSSTCam", 7024032100720, 94, ImageType.SCIENCE, 16),
    "CC_S_20240404_000780_R22_S01.fits": ("LSSTComCam", 7024040400780, 1, ImageType.SCIENCE, 16),
    "itl_spot.fits.gz": ("LSSTCam", 3019110102212, 11, ImageType.SPOT, 16),
}


def _read(name: str) -> bytes:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not part of the project")
    return path.read_bytes()


@pytest.mark.shared_data
@pytest.mark.parametrize("name", FACTS)
def test_real_raws_are_read_right(name):
    info, structure = read_info(_read(name), uri=f"file:///raws/{name}")
    segments = [hdu for hdu in structure.hdus if hdu.is_image and hdu.name.startswith("Segment")]
    assert (info.camera, info.exposure_id, info.detector, info.image_type, len(segments)) == FACTS[name]


@pytest.mark.shared_data
@pytest.mark.parametrize("name", FACTS)
def test_the_amps_of_the_camera_are_in_the_order_of_the_segments(name):
    info, structure = read_info(_read(name), uri=name)
    detector = load_camera(info.camera).by_id[info.detector]
    names = [hdu.name.removeprefix("Segment") for hdu in structure.hdus if hdu.name.startswith("Segment")]
    assert [amp.name.removeprefix("C") for amp in detector.amps] == names


@pytest.mark.shared_data
def test_a_real_guider_file_says_so():
    name = "MC_C_20240918_000013_R00_SG0_guider.fits"
    info, structure = read_info(_read(name), uri="renamed.fits")
    assert (info.detector_name, info.is_guider, info.exposure_id) == ("R00_SG0", True, 2024091800013)
    assert sum(hdu.is_compressed_image for hdu in structure.hdus) >= 50


@pytest.mark.shared_data
def test_a_real_raw_cut_in_two_says_which_segment_is_cut():
    data = _read("7024032100720-R22-S11-det094.fits.fz")
    with pytest.raises(TruncatedRawError, match=r"HDU \d+"):
        read_info(data[: len(data) // 2], uri="x.fits")


def test_a_raw_of_another_camera_than_expected_is_refused():
    with pytest.raises(WrongCameraError, match="not of LATISS"):
        read_info(raw_bytes(lsstcam_header()), uri="x.fits", camera=load_camera("LATISS"))


def test_a_raw_without_an_image_is_corrupt():
    header = header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, **lsstcam_header()})
    with pytest.raises(CorruptRawError, match="no image among 1 HDUs"):
        read_info(header, uri="x.fits")


def test_a_small_raw_reads_with_the_camera_that_is_expected():
    data = raw_bytes(lsstcam_header(INSTRUME="TestCam205", OBSID="TC_O_20251115_000226", CAMCODE="TC"))
    info, structure = read_info(data, uri="x.fits", camera=load_camera("TestCam205"))
    assert (info.camera, info.obs_id, len(structure.hdus)) == ("TestCam205", "TC_O_20251115_000226", 3)
