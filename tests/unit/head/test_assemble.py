"""What a head remembers of a night is bounded: of old exposures where their raws are, not their headers."""

from datetime import UTC, datetime

from rapid.arrival.models import RawHeader
from rapid.camera.store import load_camera
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.head.assemble import WHOLE, Exposures
from rapid.head.known import KnownExposures
from rapid.results.store import open_results

FIRST = 2026112000001


def make_raw(exposure_id: int, detector: int) -> RawHeader:
    info = ExposureInfo(
        camera="LSSTComCam",
        obs_id=f"CC_O_20261120_{exposure_id % 100000:06d}",
        exposure_id=exposure_id,
        day_obs=20261120,
        seq_num=exposure_id % 100000,
        controller="O",
        image_type=ImageType.SCIENCE,
        detector=detector,
        detector_name=f"R22_S{detector // 3}{detector % 3}",
        begin=datetime(2026, 11, 21, tzinfo=UTC),
    )
    return RawHeader(uri=f"/raws/{exposure_id}/{detector}.fits", info=info, header={"OBSID": info.obs_id})


def test_headers_of_old_exposures_are_let_go_and_all_else_stays():
    exposures = Exposures()
    for n in range(WHOLE + 1):
        for detector in range(2):
            exposures.add(make_raw(FIRST + n, detector))
    old, new = exposures.find(FIRST), exposures.find(FIRST + 1)
    assert (len(old.raws), len(new.raws)) == (0, 2)
    assert old.uris == {(0, False): f"/raws/{FIRST}/0.fits", (1, False): f"/raws/{FIRST}/1.fits"}
    assert old.info.exposure_id == FIRST
    # What comes late is posted by itself; where the others are is known all the same.
    exposures.add(make_raw(FIRST, 2))
    assert list(old.raws) == [(2, False)]
    assert len(old.uris) == 3
    assert sum(len(exposure.raws) for exposure in exposures.all()) <= 2 * WHOLE + 1


def test_a_request_still_finds_the_raws_of_an_old_exposure(tmp_path):
    results = open_results(str(tmp_path / "results.sqlite"))
    exposures = Exposures()
    for n in range(WHOLE + 1):
        exposures.add(make_raw(FIRST + n, 0))
    known = KnownExposures(load_camera("LSSTComCam"), results, exposures)
    assert known.live(FIRST).raws == {0: f"/raws/{FIRST}/0.fits"}
    assert known.live(FIRST).header == {"OBSID": "CC_O_20261120_000001"}
    assert known.live(FIRST - 1) is None
    results.close()
