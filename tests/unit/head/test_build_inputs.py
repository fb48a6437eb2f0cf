"""Which detectors a calib is built for; of the others it is told why there is none, and the build goes on."""

from datetime import UTC, datetime

import pytest

from rapid.camera.store import load_camera
from rapid.exclusions.bad_exposures import BadExposureStore
from rapid.exclusions.decide import parse_targets
from rapid.exclusions.store import ExclusionStore
from rapid.head.build_inputs import find_build_inputs
from rapid.results.models import DetectorState, DetectorStatus
from rapid.results.store import open_results
from tests.support.records import make_result, make_summary

CAMERA = load_camera("LSSTCam")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
MEMBERS = tuple(2026112000001 + place for place in range(4))
FINISHED = DetectorStatus(state=DetectorState.FINISHED)


@pytest.fixture
def results(tmp_path):
    """Four biases of detectors 93, 94 and 95."""
    store = open_results(str(tmp_path / "results.sqlite"))
    for seq_num in range(1, 5):
        put(store, seq_num, {93: FINISHED, 94: FINISHED, 95: FINISHED})
    yield store
    store.close()


def put(store, seq_num, detectors, version=1):
    for detector, status in detectors.items():
        if status is FINISHED:
            store.put_result(make_result(seq_num, detector, pipeline="bias", image_type="bias"))
    info = {"begin": f"2026-11-20T20:0{seq_num}:00"}
    store.put_summary(
        make_summary(seq_num, version, pipeline="bias", image_type="bias", info=info, detectors=detectors)
    )


def exclude(store, exposures, *names):
    targets = parse_targets(names, CAMERA) if names else []
    BadExposureStore(store.engine).exclude("LSSTCam", exposures, targets=targets, reason="light", author="ann", now=NOW)


def test_every_detector_of_good_exposures_is_built(results):
    found = find_build_inputs(results, CAMERA, "bias", MEMBERS)
    assert found.raws == {detector: f"/raws/4_{detector}.fits" for detector in (93, 94, 95)}
    assert found.unusable == {}


def test_what_was_built_before_an_exposure_was_excluded_is_not_what_is_asked_for(results):
    built = make_result(4, 94, pipeline="build_bias")
    built.provenance.inputs = list(MEMBERS)
    assert find_build_inputs(results, CAMERA, "bias", MEMBERS).is_of_these(built)
    exclude(results, MEMBERS[:1], "R22_S11")
    assert not find_build_inputs(results, CAMERA, "bias", MEMBERS).is_of_these(built)
    exclude(results, MEMBERS[1:], "R22_S11")
    assert not find_build_inputs(results, CAMERA, "bias", MEMBERS).is_of_these(built)


def test_a_detector_that_was_off_in_all_exposures_is_told_with_the_reason(results):
    off = parse_targets(["R22_S11"], CAMERA)
    begin = datetime(2026, 11, 20, tzinfo=UTC)
    ExclusionStore(results.engine).exclude("LSSTCam", off, reason="noisy", author="ann", valid_from=begin, now=begin)
    found = find_build_inputs(results, CAMERA, "bias", MEMBERS)
    assert sorted(found.raws) == [93, 95]
    assert list(found.unusable) == [94]
    assert found.unusable[94].startswith("no usable input: noisy (ann")


def test_too_few_exposures_left_is_told_with_what_is_left(results):
    exclude(results, MEMBERS[:3], "R22_S11")
    found = find_build_inputs(results, CAMERA, "bias", MEMBERS)
    assert found.unusable[94].startswith("no usable input: 1 of 4 exposures is left, 2 are needed; 2026112000001, ")
    assert sorted(find_build_inputs(results, CAMERA, "bias", MEMBERS, least=1).raws) == [93, 94, 95]


def test_exposures_that_are_bad_as_a_whole_leave_out_those_that_were_read_out_alone(results):
    exclude(results, MEMBERS)
    found = find_build_inputs(results, CAMERA, "bias", MEMBERS)
    assert found.raws == {}
    assert sorted(found.unusable) == [93, 94, 95]


def test_a_raw_that_could_not_be_read_is_no_reason_to_build_nothing(results):
    bad = DetectorStatus(state=DetectorState.QUARANTINED, reason="truncated")
    put(results, 5, {93: FINISHED, 94: FINISHED, 95: bad})
    early = find_build_inputs(results, CAMERA, "bias", (2026112000005, *MEMBERS))
    assert sorted(early.raws) == [93, 94, 95], "the others are enough"
    late = find_build_inputs(results, CAMERA, "bias", (*MEMBERS, 2026112000005))
    assert sorted(late.raws) == [93, 94]
    assert late.unusable[95] == (
        "no usable input in the newest exposure; 2026112000005: quarantined: truncated; build it from the others"
    )


def test_only_detectors_that_were_asked_for_are_told_of(results):
    exclude(results, MEMBERS, "R22_S11")
    found = find_build_inputs(results, CAMERA, "bias", MEMBERS, detectors={93})
    assert (sorted(found.raws), found.unusable) == ([93], {})
