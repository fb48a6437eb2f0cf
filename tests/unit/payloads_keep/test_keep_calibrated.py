"""The calibrated image as a product: nothing of it is lost but a fraction of the noise."""

import numpy as np
import pytest
from astropy.io import fits

from payloads.keep.calibrated import PLANES, read_calibrated, read_plane, write_calibrated
from payloads.keep.payload import KeepCalibrated
from payloads.mask import MASK_PLANES, SAT
from payloads.plugin import Frame
from rapid.camera.store import load_camera
from rapid.errors import PayloadError
from rapid.exposure.models import ExposureInfo, ImageType

NOISE = 8.0
SHAPE = (96, 128)


@pytest.fixture
def frame() -> Frame:
    camera = load_camera("LSSTCam")
    detector = camera.by_name["R22_S11"]
    info = ExposureInfo(
        camera="LSSTCam", exposure_id=2026112000007, obs_id="MC_O_20261120_000007", controller="O", day_obs=20261120,
        seq_num=7, detector=detector.id, detector_name=detector.name, image_type=ImageType.SCIENCE,
        physical_filter="r_57", exposure_time_s=30.0,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    found = Frame(raw=None, info=info, header={}, camera=camera, detector=detector, unit="electron")
    found.image = rng.normal(400.0, NOISE, SHAPE).astype(np.float32)
    found.image[10, 20] = 0.0
    found.mask = np.zeros(SHAPE, np.int32)
    found.mask[5, 6] = SAT
    found.variance = (found.image + 25).astype(np.float32)
    found.applied += ["overscan", "gain"]
    found.calib_ids["bias"] = "bias-v3"
    return found


def keep(frame: Frame, **config: float) -> bytes:
    KeepCalibrated(KeepCalibrated.Config(**config)).run(frame)
    file = frame.files["calibrated"]
    assert (file.extension, file.content_type) == ("fits.fz", "application/fits")
    return file.data


def test_what_is_kept_is_read_back_to_a_fraction_of_the_noise(frame):
    found = read_calibrated(keep(frame))
    assert np.abs(found.image - frame.image).max() < NOISE / 16
    assert found.image[10, 20] == 0.0
    np.testing.assert_array_equal(found.mask, frame.mask)
    assert np.abs(found.variance - frame.variance).max() < NOISE / 16
    assert found.mask_planes == MASK_PLANES
    assert (found.header["EXPID"], found.header["BUNIT"]) == (2026112000007, "electron")
    assert found.header["APPLIED"] == "overscan,gain"
    assert "bias-v3" in found.header["CALIBS"]


def test_with_a_fraction_of_zero_every_bit_is_kept(frame):
    data = keep(frame, noise_fraction=0.0)
    for plane in PLANES:
        np.testing.assert_array_equal(read_plane(data, plane), getattr(frame, plane))


def test_the_same_image_makes_the_same_file(frame):
    assert keep(frame) == keep(frame)


def test_any_reader_of_fits_finds_image_mask_and_variance_in_this_order(frame, tmp_path):
    path = tmp_path / "calibrated.fits.fz"
    path.write_bytes(keep(frame))
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE"]
        assert hdus["MASK"].header["MP_SAT"] == MASK_PLANES["SAT"]


def test_without_a_calibrated_image_it_says_where_it_belongs(frame):
    frame.variance = None
    with pytest.raises(PayloadError, match="behind isr"):
        keep(frame)


def test_planes_of_different_shapes_are_refused(frame):
    with pytest.raises(ValueError, match="different shapes"):
        write_calibrated(frame.image, frame.mask[1:], frame.variance, facts={}, noise_fraction=0.1)
