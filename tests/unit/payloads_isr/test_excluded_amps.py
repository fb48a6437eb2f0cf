"""An amp that is switched off: masked, not measured, and the others as if it were not there."""

import numpy as np
import pytest
from amp_raws import DictCalibs, detector, expose, frame_of, raw_bytes

from payloads.isr.payload import Isr, IsrConfig
from payloads.mask import BAD
from payloads.plugin import CalibPlane
from payloads.quality.calibration_checks import CalibrationStatistics, CalibrationStatisticsConfig
from rapid.exposure.models import ImageType

OFF = {"R22_S11": {"C10": "noisy (ann)"}}


def sky_raw(det, level=900.0, wild=50_000.0):
    """Return a raw whose amp C10 shows something wild."""
    rng = np.random.default_rng(21)
    sky = rng.poisson(level, (det.height, det.width)).astype(float)
    sky[det.amp_by_name["C10"].trimmed.slices] += wild
    return raw_bytes(det, expose(det, sky, rng=rng))


def run(raw, off=None, *, calibs=None, detector_id=94, **facts):
    frame = frame_of(raw, detector_id=detector_id, calibs=calibs, **facts)
    Isr(IsrConfig(parallel_overscan=False, excluded_amps=off or {})).run(frame)
    return frame


def test_its_pixels_are_bad_and_no_others():
    det = detector()
    raw = sky_raw(det)
    frame, plain = run(raw, OFF), run(raw)
    box = det.amp_by_name["C10"].trimmed.slices
    assert (frame.mask[box] & BAD).all()
    expected = plain.mask & BAD
    expected[box] = BAD
    assert np.array_equal(frame.mask & BAD, expected)
    assert np.isfinite(frame.image).all()
    assert abs(np.median(frame.image[box]) - 900) < 30, "what stands in for it is the level of the others"


def test_it_has_no_numbers_but_a_reason_and_the_detector_has_those_of_the_others():
    det = detector()
    raw = sky_raw(det)
    frame, plain = run(raw, OFF), run(raw)
    row = frame.amps["C10"]
    assert row.pop("excluded") == "noisy (ann)"
    assert row.keys() == plain.amps["C10"].keys()
    assert set(row.values()) == {None}
    for name in set(frame.amps) - {"C10"}:
        # Which amp another one resembles most is a matter of all that are measured.
        both = [{**one.amps[name], "level_correlation_max": None} for one in (frame, plain)]
        assert both[0] == both[1]
    assert frame.metrics["n_excluded_amps"] == 1
    assert frame.metrics["amp_median_scatter"] < 0.01 < plain.metrics["amp_median_scatter"]
    assert frame.metrics["n_bad"] == plain.metrics["n_bad"] - plain.amps["C10"]["n_bad"]
    assert "excluded_amps" in frame.applied
    assert "excluded_amps" not in plain.applied
    assert "n_excluded_amps" not in plain.metrics


def test_known_defects_stay_masked_beside_it():
    det = detector()
    defects = np.zeros((det.height, det.width), np.float32)
    defects[3, 4:9] = 1
    frame = run(sky_raw(det), OFF, calibs=DictCalibs(defects=CalibPlane("defects-1", defects)))
    assert (frame.mask[3, 4:9] & BAD).all()
    assert (frame.mask[det.amp_by_name["C10"].trimmed.slices] & BAD).all()
    assert {"defects", "excluded_amps"} <= set(frame.applied)


def test_amps_of_the_same_name_in_other_detectors_are_untouched():
    isr = Isr(IsrConfig(parallel_overscan=False, excluded_amps=OFF))
    for detector_id in (94, 0, 204, 94):
        det = detector(detector_id=detector_id)
        rng = np.random.default_rng(22)
        sky = rng.poisson(900, (det.height, det.width)).astype(float)
        frame = frame_of(raw_bytes(det, expose(det, sky, rng=rng)), detector_id=detector_id)
        isr.run(frame)
        assert ((frame.mask & BAD) != 0).any() == (detector_id == 94)


@pytest.mark.parametrize("kind", [ImageType.BIAS, ImageType.DARK, ImageType.FLAT])
def test_checks_of_calibration_exposures_pass_over_it(kind):
    det = detector()
    raw = sky_raw(det, level=500.0)
    frame, plain = run(raw, OFF, image_type=kind), run(raw, image_type=kind)
    for one in (frame, plain):
        CalibrationStatistics(CalibrationStatisticsConfig()).run(one)
    row = frame.amps["C10"]
    assert row["excluded"] == "noisy (ann)"
    assert {value for name, value in row.items() if not name.startswith(("n_", "excluded"))} == {None}
    assert frame.metrics.keys() - {"n_excluded_amps"} == plain.metrics.keys()
    both = [{**one.amps["C11"], "level_correlation_max": None} for one in (frame, plain)]
    assert both[0] == both[1]
