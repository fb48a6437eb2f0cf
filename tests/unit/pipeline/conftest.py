import pytest

from rapid.exposure.models import ExposureInfo, ImageType


@pytest.fixture
def info_of():
    def make(image_type: str) -> ExposureInfo:
        return ExposureInfo(
            camera="LSSTCam", exposure_id=2026112000012, obs_id="MC_O_20261120_000012", controller="O", day_obs=20261120,
            seq_num=12, detector=94, detector_name="R22_S11", image_type=ImageType(image_type),
        )  # fmt: skip

    return make
