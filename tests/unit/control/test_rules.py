"""What a control state has to be, and how changes are merged into it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.camera.store import load_camera
from rapid.control.models import ControlChange, ControlState
from rapid.control.rules import as_patch, changed_fields, merge, patch_state, replay, validate_state
from rapid.errors import ConfigurationError
from rapid.pipeline.store import default_book

CAMERA = load_camera("LSSTCam")
BOOK = default_book()


def apply(patch: object, state: ControlState | None = None) -> ControlState:
    state = patch_state(state or ControlState(), patch)
    validate_state(state, CAMERA, BOOK)
    return state


@pytest.mark.parametrize(
    ("patch", "field", "says"),
    [
        ({"patern": "all"}, "patern", "did you mean pattern"),
        ({"timeouts": {"gather": 5}}, "timeouts.gather", "did you mean gather_s"),
        ({"timeouts": 5}, "timeouts", "dictionary"),
        ({"timeouts": {"gather_s": 0}}, "timeouts.gather_s", "greater than 0"),
        ({"timeouts": {"gather_s": "soon"}}, "timeouts.gather_s", "number"),
        ({"timeouts": {"gather_s": float("nan")}}, "timeouts.gather_s", ""),
        ({"timeouts": {"gather_s": float("inf")}}, "timeouts.gather_s", ""),
        ({"timeouts": {"gather_s": True}}, "timeouts.gather_s", "true or false"),
        ({"timeouts": {"gather_s": 60, "regather_s": 5}}, "timeouts", "regather_s"),
        ({"pattern": "all &"}, "pattern", "column"),
        ({"pattern": "R99"}, "pattern", "R99"),
        ({"pattern": "all - all"}, "pattern", "selects no detector"),
        ({"pattern": ""}, "pattern", ""),
        ({"pattern": "(" * 5000}, "pattern", ""),
        ({"pattern": ["all"]}, "pattern", "string"),
        ({"visit_mode": "sometimes"}, "visit_mode", "constant"),
        ({"worker_mode": "lazy"}, "worker_mode", "waiting"),
        ({"pipelines": {"science": "quiklook"}}, "pipelines.science", "did you mean quicklook"),
        ({"pipelines": {"science": "build_bias"}}, "pipelines.science", "single images"),
        ({"pipelines": {"scienc": "quicklook"}}, "pipelines.scienc", "science"),
        ({"wavefront_pipeline": "../etc"}, "wavefront_pipeline", "known"),
        ({"witness_detector": 205}, "witness_detector", "0 to 204"),
        ({"witness_detector": -1}, "witness_detector", "greater"),
        ({"guaranteed": [20261120]}, "guaranteed", "exposure id"),
        ({"guaranteed": [2026134000001]}, "guaranteed", "exposure id"),
        ({"guaranteed": "all"}, "guaranteed", ""),
        ({"patterns": {"all": "R22"}}, "patterns.all", "always there"),
        ({"patterns": {"../x": "R22"}}, "patterns.../x", "small letters"),
        ({"patterns": {"r22": "R11"}}, "patterns.r22", "raft"),
        ({"patterns": {"mine": "yours", "yours": "mine"}}, "patterns.mine", "contain each other"),
        ({"patterns": {"mine": "R99"}}, "patterns.mine", "R99"),
        ({"shedding": {"step_up_at": 2.0}}, "shedding", "below step_down_at"),
        ({"shedding": {"ladder": ["minimal", "R99"]}}, "shedding.ladder.1", "R99"),
        ({"guaranteed_header": "a key"}, "guaranteed_header", "pattern"),
        ([], "change", "object"),
        ("pattern=all", "change", "object"),
        (None, "change", "object"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(patch, field, says):
    with pytest.raises(ConfigurationError) as refused:
        apply(patch)
    assert refused.value.field == field
    assert says in refused.value.message


@pytest.mark.parametrize("camera", ["LSSTCam", "LATISS", "LSSTComCam", "LSST-TS8", "TestCam205"])
def test_the_defaults_are_valid_for_every_camera(camera):
    validate_state(ControlState(), load_camera(camera), BOOK)


def test_a_patch_changes_what_it_names_and_null_takes_back():
    state = apply({"pattern": "minimal", "timeouts": {"gather_s": 8}, "pipelines": {"science": "quicklook"}})
    assert (state.pattern, state.timeouts.gather_s) == ("minimal", 8)
    back = apply({"pattern": None, "timeouts": {"gather_s": None}, "pipelines": {"science": None}}, state)
    assert back == ControlState()


def test_a_saved_pattern_can_be_used_at_once():
    state = apply({"patterns": {"mine": "R22 | R11"}, "pattern": "mine - R11_S00"})
    with pytest.raises(ConfigurationError, match="mine"):
        apply({"patterns": {"mine": None}}, state)


@pytest.mark.parametrize(
    ("word", "mode"), [("MURDEROUS", "preempting"), ("Consuming", "consuming"), ("WAITING", "waiting")]
)
def test_modes_are_known_under_the_names_of_the_system_before(word, mode):
    assert apply({"worker_mode": word}).worker_mode.value == mode


def test_fields_by_dotted_path_are_a_patch():
    assert as_patch({"timeouts.gather_s": 8, "pattern": "all"}) == {"timeouts": {"gather_s": 8}, "pattern": "all"}


@pytest.mark.parametrize("fields", [{"a..b": 1}, {"": 1}, {".": 1}, {"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}])
def test_contradicting_paths_are_refused(fields):
    with pytest.raises(ConfigurationError):
        as_patch(fields)


PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "pattern": st.sampled_from(["all", "minimal", "R22 | R11", "ccd_checkerboard"]),
        "visit_mode": st.sampled_from(["constant", "alternating"]),
        "pipelines": st.dictionaries(
            st.sampled_from(["science", "cwfs"]), st.sampled_from(["quicklook", "donut", None])
        ),
        "timeouts": st.fixed_dictionaries({}, optional={"gather_s": st.floats(0.1, 5) | st.none()}),
        "patterns": st.dictionaries(st.sampled_from(["mine", "yours"]), st.sampled_from(["R22", "R33", None])),
        "witness_detector": st.integers(0, 204) | st.none(),
        "guaranteed": st.lists(st.integers(2026112000001, 2026112000099), max_size=4),
    },
)


@given(st.lists(PATCHES, max_size=5))
def test_the_log_alone_leads_to_the_same_state(patches):
    state, changes = ControlState(), []
    for version, patch in enumerate(patches, start=1):
        new = apply(patch, state)
        fields = changed_fields(state.model_dump(mode="json"), new.model_dump(mode="json"))
        changes.append(
            ControlChange(
                version=version,
                changed_by="x",
                changed_ms=version,
                door="cli",
                before={path: old for path, (old, _) in fields.items()},
                after={path: value for path, (_, value) in fields.items()},
            )
        )
        state = new
    stored = [ControlChange.model_validate_json(change.model_dump_json()) for change in changes]
    states = replay(ControlState(), stored)
    assert (states[-1] if states else ControlState()) == state


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*ControlState.model_fields, "science", "gather_s", "ladder", "mine"]) | st.text(max_size=8)


@given(st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=3), max_size=4) | JSON)
def test_whatever_is_sent_is_valid_or_refused_with_a_field(patch):
    try:
        state = apply(patch)
    except ConfigurationError as refused:
        error = refused
    else:
        error = None
    if error is not None:
        assert error.field
        assert error.message.strip()
        return
    assert ControlState.model_validate_json(state.model_dump_json()) == state
    json.dumps(state.model_dump(mode="json"), allow_nan=False)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4), st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_merging_leaves_both_as_they_were(document, patch):
    copies = json.dumps(document), json.dumps(patch)
    merged = merge(document, patch)
    assert (json.dumps(document), json.dumps(patch)) == copies
    assert not [name for name, value in patch.items() if value is None and name in merged]
