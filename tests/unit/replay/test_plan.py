"""A plan makes the exposures it promises, or says which field is wrong."""

import itertools
from pathlib import Path

import pytest

from rapid.errors import ConfigurationError
from rapid.exposure.models import ImageType
from replay.demo import NIGHTS, prepare_folder
from replay.plan import NightPlan, load_plan
from replay.planned import recording_of_plan


@pytest.mark.parametrize("path", sorted(NIGHTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_nights_are_valid(path: Path):
    exposures = load_plan(path).exposures()
    assert [e.seq_num for e in exposures] == list(range(1, len(exposures) + 1))
    assert all(later.begin > earlier.begin for earlier, later in itertools.pairwise(exposures))


def test_the_demo_night_has_every_kind_in_order():
    kinds = [e.image_type for e in load_plan(NIGHTS / "demo.yaml").exposures()]
    assert kinds[0] is ImageType.BIAS
    assert {ImageType.DARK, ImageType.FLAT, ImageType.SCIENCE, ImageType.FOCUS, ImageType.CWFS} <= set(kinds)


def test_groups_carry_their_size_and_a_sweep_its_positions():
    plan = NightPlan.model_validate(
        {"camera": "LSSTComCam", "day_obs": 20261120, "blocks": [
            {"kind": "focus_sweep", "positions_mm": [-0.1, 0.0, 0.1], "physical_filter": "r_03"},
            {"kind": "donut_pair", "physical_filter": "r_03"},
            {"kind": "science", "n": 2, "physical_filter": "r_03", "missing": {1: [0, 8]}},
        ]}
    )  # fmt: skip
    sweep, pair, science = plan.exposures()[:3], plan.exposures()[3:5], plan.exposures()[5:]
    assert [(e.group_index, e.group_size, e.focus_z_mm) for e in sweep] == [(1, 3, -0.1), (2, 3, 0.0), (3, 3, 0.1)]
    assert [e.focus_z_mm for e in pair] == [-1.5, 1.5]
    assert science[0].detectors == tuple(range(9))
    assert science[1].detectors == tuple(range(1, 8))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param("camera: LSSTComCam\nday_obs: 1\nblocks: [{kind: bias, n: 1}]", "day_obs", id="no such day"),
        pytest.param(
            "camera: LSSTComCam\nday_obs: 20261399\nblocks: [{kind: bias, n: 1}]", "day_obs", id="a 13th month"
        ),
        pytest.param("camera: LSSTComCam\nday_obs: 20261120\nblocks: []", "blocks", id="nothing to take"),
        pytest.param(
            "camera: LSSTComCam\nday_obs: 20261120\nblocks: [{kind: bias, n: 0}]", "blocks.0.bias.n", id="none"
        ),
        pytest.param("camera: LSSTComCam\nday_obs: 20261120\nblocks: [{kind: x}]", "blocks.0", id="unknown block"),
        pytest.param("camera: [", "plan", id="not YAML"),
        pytest.param("", "plan", id="an empty file"),
        pytest.param(
            "camera: LSSTComCam\nday_obs: 20261120\ncadence_s: .inf\nblocks: [{kind: bias, n: 1}]",
            "cadence_s",
            id="never the next exposure",
        ),
        pytest.param(
            "camera: LSSTComCam\nday_obs: 20261120\nblocks: [{kind: dark, n: 1, exposure_time_s: .inf}]",
            "blocks.0.dark.exposure_time_s",
            id="an exposure without end",
        ),
        pytest.param(
            "camera: LSSTComCam\nday_obs: 20261120\nseed: -1\nblocks: [{kind: bias, n: 1}]",
            "seed",
            id="a negative seed",
        ),
    ],
)
def test_a_mistake_names_the_field(tmp_path, text, field):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_plan(tmp_path / "plan.yaml")
    assert caught.value.field.startswith(field)


def test_a_detector_the_camera_does_not_have_is_refused():
    plan = NightPlan.model_validate(
        {"camera": "LSSTComCam", "day_obs": 20261120, "detectors": [9], "blocks": [{"kind": "bias", "n": 1}]}
    )
    with pytest.raises(ConfigurationError, match="no detector 9"):
        plan.exposures()


SCIENCE = {"kind": "science", "n": 2, "physical_filter": "r_03"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"camera": "NoCam"}, "camera: no camera named NoCam", id="no such camera"),
        pytest.param({"detectors": [3, 3]}, "detectors: detector 3 is there twice", id="a detector twice"),
        pytest.param({"first_seq_num": 99_999}, "blocks: 2 exposures from 99999 on", id="more than a day counts"),
        pytest.param(
            {"blocks": [SCIENCE | {"physical_filter": "r_57"}]},
            "blocks.0.science.physical_filter: LSSTComCam has no r_57",
            id="another camera's filter",
        ),
        pytest.param(
            {"blocks": [SCIENCE | {"missing": {1: [9]}}]},
            "missing.1: LSSTComCam has no detector 9",
            id="missing nobody",
        ),
        pytest.param(
            {"blocks": [SCIENCE | {"missing": {2: [8]}}]}, "missing: 2 is no place in a block of 2", id="missing never"
        ),
        pytest.param(
            {"blocks": [SCIENCE | {"missing": {0: [*range(9)]}}]}, "missing.0: leaves no detector", id="all missing"
        ),
    ],
)
def test_what_the_camera_cannot_take_is_refused_with_the_field(change, complaint):
    plan = NightPlan.model_validate({"camera": "LSSTComCam", "day_obs": 20261120, "blocks": [SCIENCE]} | change)
    with pytest.raises(ConfigurationError, match=complaint):
        recording_of_plan(plan)


def test_a_grating_beside_a_filter_is_taken_as_it_is():
    facts = {"camera": "LATISS", "day_obs": 20261120, "blocks": [SCIENCE | {"physical_filter": "empty_1~holo4_003"}]}
    assert NightPlan.model_validate(facts).exposures()[0].physical_filter == "empty_1~holo4_003"


def test_a_demo_never_empties_a_folder_it_did_not_make(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ConfigurationError, match="no demo made"):
        prepare_folder(tmp_path)
    fresh = tmp_path / "fresh"
    prepare_folder(fresh)
    (fresh / "old").touch()
    prepare_folder(fresh)
    assert not (fresh / "old").exists()


def test_seeing_and_clouds_follow_their_history_and_focus_drifts():
    plan = NightPlan.model_validate(
        {
            "camera": "LSSTComCam",
            "day_obs": 20261120,
            "focus_drift_um": 20.0,
            "seeing_history_arcsec": [0.6, 1.2],
            "transparency_history": [1.0, 0.2, 1.0],
            "blocks": [{"kind": "bias", "n": 2}, {"kind": "science", "n": 5, "physical_filter": "r_03"}],
        }
    )
    bias, *_, last = plan.exposures()
    sky = plan.exposures()[2:]
    assert [e.transparency for e in sky] == pytest.approx([1.0, 0.6, 0.2, 0.6, 1.0])
    # A breath of six percent is added to the history.
    assert [e.seeing_arcsec for e in sky] == pytest.approx([0.6, 0.75, 0.9, 1.05, 1.2], rel=0.07)
    assert last.best_focus_mm - bias.best_focus_mm == pytest.approx(0.020)
    assert not bias.sees_sky
