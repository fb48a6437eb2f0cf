"""What the head posts, as tables of cases."""

from typing import Any

import pytest

from rapid.arrival.models import RawHeader
from rapid.camera.store import load_camera
from rapid.exposure.models import ExposureInfo, ImageType
from rapid.head.decide import WAVEFRONT, calib_groups, choose_builds, expected_detectors, plan_batches
from rapid.head.models import CalibGroup
from rapid.pipeline.store import default_book
from rapid.results.models import DetectorState, DetectorStatus, ExposureSummary, GatherReason

LSSTCAM = load_camera("LSSTCam")


def make_header(detector: int, *, image_type: ImageType = ImageType.SCIENCE, is_guider: bool = False) -> RawHeader:
    info = ExposureInfo(
        camera="LSSTCam",
        exposure_id=2026112000012,
        obs_id="MC_O_20261120_000012",
        controller="O",
        day_obs=20261120,
        seq_num=12,
        detector=detector,
        detector_name=LSSTCAM.by_id[detector].name,
        is_guider=is_guider,
        image_type=image_type,
    )
    return RawHeader(uri=f"/raws/{detector}.fits", info=info)


def plan(*headers: RawHeader, expected: frozenset[int] = LSSTCAM.science_ids):
    return plan_batches(headers, camera=LSSTCAM, book=default_book(), expected=expected)


def test_one_science_raw_makes_a_batch_that_expects_all_science_detectors():
    (batch,) = plan(make_header(94))
    assert (batch.pipeline, batch.pool) == ("quicklook", "science")
    assert batch.expected == LSSTCAM.science_ids
    assert batch.raws == {94: "/raws/94.fits"}
    assert batch.superseded == {}


@pytest.mark.parametrize(
    ("image_type", "pipeline"),
    [
        pytest.param(ImageType.BIAS, "bias", id="a bias is checked as a bias"),
        pytest.param(ImageType.DARK, "dark", id="a dark as a dark"),
        pytest.param(ImageType.FLAT, "flat", id="a flat as a flat"),
        pytest.param(
            ImageType.CWFS, "donut wavefront_fam", id="a defocused image is measured as donuts, and its wavefront"
        ),
        pytest.param(ImageType.FOCUS, "quicklook", id="a sweep image is a sky image"),
        pytest.param(ImageType.UNKNOWN, "quicklook", id="an unknown type gets a look all the same"),
    ],
)
def test_the_image_type_chooses_the_pipeline(image_type: ImageType, pipeline: str):
    assert [batch.pipeline for batch in plan(make_header(94, image_type=image_type))] == pipeline.split()


def test_wavefront_sensors_of_a_science_image_are_batches_that_expect_what_came():
    batches = {batch.pipeline: batch for batch in plan(make_header(94), make_header(191), make_header(192))}
    assert sorted(batches) == ["donut", "quicklook", "wavefront"]
    for name, pool in (("donut", "science"), ("wavefront", "wavefront")):
        assert (batches[name].expected, batches[name].pool) == (frozenset({191, 192}), pool)
    assert batches["quicklook"].raws.keys() == {94}


def test_guider_files_go_their_own_way():
    batches = {batch.pipeline: batch for batch in plan(make_header(94), make_header(189, is_guider=True))}
    assert batches["guider"].expected == frozenset({189})


def test_a_detector_nobody_asked_for_is_settled_and_on_the_backlog():
    (batch,) = plan(make_header(94), make_header(3), expected=frozenset({94}))
    assert batch.expected == frozenset({3, 94})
    assert set(batch.superseded) == {3}


@pytest.mark.parametrize(
    ("read_out", "selected", "expected"),
    [
        pytest.param(None, None, LSSTCAM.science_ids, id="nothing said means all science detectors"),
        pytest.param(
            frozenset({"R22_S11", "R00_SW0"}), None, frozenset({94}), id="only what was read out, science only"
        ),
        pytest.param(frozenset(), None, frozenset(), id="nothing read out"),
        pytest.param(None, frozenset({1, 94, 191}), frozenset({1, 94}), id="only what is selected"),
        pytest.param(frozenset({"R22_S11"}), frozenset({1}), frozenset(), id="selected and read out do not meet"),
        pytest.param(frozenset({"R99_S99"}), None, frozenset(), id="an unheard-of name is nobody"),
    ],
)
def test_expected_detectors(read_out, selected, expected):
    assert expected_detectors(LSSTCAM, read_out=read_out, selected=selected) == expected


def make_summary(seq_num: int, image_type: str, group: str | None, size: int, **changes: Any) -> ExposureSummary:
    facts: dict[str, Any] = {
        "camera": "LSSTCam",
        "exposure": 2026112000000 + seq_num,
        "day_obs": 20261120,
        "seq_num": seq_num,
        "pipeline": image_type,
        "image_type": image_type,
        "version": 1,
        "reason": GatherReason.COMPLETE,
        "n_finished": 1,
        "n_expected": 1,
        "is_complete": True,
        "detectors": {},
        "info": {"group_id": group, "group_size": size, "physical_filter": "r_57"},
    }
    return ExposureSummary(**facts | changes)


def test_a_sequence_is_whole_when_all_it_announced_is_complete():
    three = [make_summary(n, "bias", "g", 3) for n in (1, 2, 3)]
    (whole,) = calib_groups(three)
    assert whole.is_whole
    assert whole.members == (2026112000001, 2026112000002, 2026112000003)
    (short,) = calib_groups(three[:2])
    assert not short.is_whole
    (partial,) = calib_groups([*three[:2], make_summary(3, "bias", "g", 3, is_complete=False)])
    assert not partial.is_whole


@pytest.mark.parametrize(
    ("end", "is_whole"),
    [("quarantined", True), ("failed", True), ("excluded", True), ("waiting", False), ("queued", False), ("superseded", False)],
)  # fmt: skip
def test_one_detector_that_ended_without_a_result_does_not_hold_up_the_others(end, is_whole):
    detectors = {93: DetectorStatus(state=DetectorState.FINISHED), 94: DetectorStatus(state=DetectorState(end))}
    two = [make_summary(n, "bias", "g", 3) for n in (1, 2)]
    (group,) = calib_groups([*two, make_summary(3, "bias", "g", 3, is_complete=False, detectors=detectors)])
    assert group.is_whole is is_whole


def test_flats_of_two_filters_are_two_sequences_and_builds_are_none():
    flats = [
        make_summary(1, "flat", "g", 2),
        make_summary(2, "flat", "g", 2, info={"group_id": "g", "group_size": 2, "physical_filter": "i_39"}),
        make_summary(2, "flat", "g", 2, pipeline="build_flat"),
    ]
    assert sorted(group.physical_filter or "" for group in calib_groups(flats)) == ["i_39", "r_57"]


@pytest.mark.parametrize("group", [None, ""])
def test_exposures_without_a_group_make_no_sequence(group):
    assert calib_groups([make_summary(1, "bias", group, 3)]) == []


BIAS = CalibGroup("bias", "b", None, (1, 2), is_whole=True)
DARK = CalibGroup("dark", "d", None, (3, 4), is_whole=True)
FLAT = CalibGroup("flat", "f", "r_57", (5, 6), is_whole=True)


@pytest.mark.parametrize(
    ("built", "due"),
    [
        pytest.param({}, ["bias"], id="first the bias"),
        pytest.param({("bias", 2): False}, [], id="a bias in progress holds the rest"),
        pytest.param({("bias", 2): True}, ["dark"], id="then the dark"),
        pytest.param({("bias", 2): True, ("dark", 4): True}, ["flat"], id="then the flat"),
        pytest.param({("bias", 2): True, ("dark", 4): True, ("flat", 6): True}, [], id="all done"),
    ],
)
def test_builds_wait_for_those_they_need(built, due):
    assert [group.image_type for group in choose_builds([FLAT, DARK, BIAS], built)] == due


def test_a_flat_waits_for_earlier_exposures_that_are_not_gathered_and_not_for_later_ones():
    assert choose_builds([FLAT], {}, ungathered={1}) == []
    assert choose_builds([FLAT], {}, ungathered={7}) == [FLAT]


def ramp(*times: float) -> list[ExposureSummary]:
    return [
        make_summary(place, "flat", "ramp", len(times), info={
            "group_id": "ramp", "group_size": len(times), "physical_filter": "r_57", "exposure_time_s": time_s
        })
        for place, time_s in enumerate(times, start=1)
    ]  # fmt: skip


def test_a_ramp_of_pairs_gives_linearity_and_gains_and_no_flat():
    assert [group.kind for group in calib_groups(ramp(1, 1, 2, 2, 4, 4, 8, 8))] == ["linearity", "ptc"]
    assert [group.kind for group in calib_groups(ramp(5, 5, 5, 5, 5, 5, 5, 5))] == ["flat"]
    assert [group.kind for group in calib_groups(ramp(1, 2, 3, 4, 5, 6, 7, 8))] == ["flat"], "no pairs"


def test_gains_wait_for_the_linearity_of_the_same_ramp():
    linearity, ptc = calib_groups(ramp(1, 1, 2, 2, 4, 4, 8, 8))
    assert choose_builds([ptc, linearity], {}) == [linearity]
    assert choose_builds([ptc, linearity], {linearity.key: False}) == []
    assert choose_builds([ptc, linearity], {linearity.key: True}) == [ptc]


def test_spots_give_crosstalk():
    spots = [make_summary(place, "spot", "s", 2, pipeline="quicklook") for place in (1, 2)]
    assert [group.kind for group in calib_groups(spots)] == ["crosstalk"]


def test_defects_come_from_the_darks_and_the_first_flats_after_them():
    darks = [make_summary(place, "dark", "d", 2) for place in (1, 2)]
    flats = [make_summary(place, "flat", "f", 2) for place in (3, 4)]
    later = [make_summary(place, "flat", "g", 2) for place in (5, 6)]
    groups = {group.kind: group for group in calib_groups([*darks, *flats, *later])}
    assert groups["defects"].members == (1, 2, 3, 4) or groups["defects"].members == tuple(
        summary.exposure for summary in [*darks, *flats]
    )
    assert groups["defects"] not in choose_builds(groups.values(), {})
    assert "defects" not in {group.kind for group in calib_groups(darks)}


def test_a_guider_file_of_a_bias_is_no_member_of_its_sequence():
    both = [make_summary(1, "bias", "g", 1), make_summary(1, "bias", "g", 1, pipeline="guider")]
    assert [len(group.members) for group in calib_groups(both)] == [1]


def test_a_later_bias_does_not_hold_an_earlier_flat():
    later = CalibGroup("bias", "b2", None, (7, 8), is_whole=True)
    assert FLAT in choose_builds([later, FLAT], {})


def test_the_operator_chooses_the_pipeline_of_wavefront_sensors():
    (corner,) = [d.id for d in LSSTCAM.detectors if d.name == "R00_SW0"]
    by_book = {batch.pipeline for batch in plan(make_header(corner))}
    header = make_header(corner)
    chosen = plan_batches(
        [header], camera=LSSTCAM, book=default_book(), expected=frozenset(), pipelines={WAVEFRONT: "assemble"}
    )
    names = {batch.pipeline for batch in chosen}
    assert "assemble" in names
    assert by_book - names <= {"wavefront"}, "the quick look goes on"
    science = plan_batches(
        [make_header(94)],
        camera=LSSTCAM,
        book=default_book(),
        expected=frozenset({94}),
        pipelines={WAVEFRONT: "assemble"},
    )
    assert [batch.pipeline for batch in science] == ["quicklook"]
