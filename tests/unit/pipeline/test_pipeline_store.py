"""Pipelines from YAML: found, checked, versioned."""

import pytest

from rapid.camera.models import Purpose
from rapid.errors import ConfigurationError, NotFoundError
from rapid.pipeline.store import (
    PACKAGED,
    choose_pipeline,
    choose_pipelines,
    default_book,
    load_book,
    load_pipeline,
    packaged_book,
)
from rapid.worker.registry import check_book, make_payloads, payload_names, resolved_hash

GOOD = """
pipelines:
  - {name: mine, version: "7", description: d, steps: [{payload: assemble}]}
rules:
  - {pipeline: mine, image_types: [science], header: {PROGRAM: [A, B]}}
"""


def test_every_packaged_pipeline_can_be_built():
    for pipeline in default_book().pipelines:
        assert [payload.name for payload in make_payloads(pipeline)] == [step.payload for step in pipeline.steps]
    assert {"assemble", "isr", "quality", "donut", "build_bias", "build_dark", "build_flat"} <= set(payload_names())


def test_a_sites_rule_is_asked_first_and_its_pipeline_replaces(tmp_path, info_of):
    (tmp_path / "site.yaml").write_text(GOOD + "  - {pipeline: quicklook}\n")
    (tmp_path / "more.yaml").write_text(
        'pipelines: [{name: quicklook, version: "9", description: ours, steps: [{payload: assemble}]}]'
    )
    book = load_book([tmp_path, PACKAGED])
    info = info_of("science")
    assert choose_pipeline(info, {"PROGRAM": "B"}, book).name == "mine"
    assert choose_pipeline(info, {"PROGRAM": "C"}, book).version == "9"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param("pipelines: [{name: 5}]", "pipelines.0.name", id="wrong type"),
        pytest.param("pipelines: [{name: a, version: '1', description: d, steps: []}]", "steps", id="no step"),
        pytest.param("pipelines: [{name: a, version: '1', description: d, stepz: []}]", "steps", id="misspelt key"),
        pytest.param("rules: [{pipeline: nobody}]", "site.yaml: rules.0.pipeline", id="rule without pipeline"),
        pytest.param("rules: [{pipeline: quicklook, image_types: [sciance]}]", "image_types", id="unknown image type"),
        pytest.param("pipelines: [", "not YAML", id="not YAML"),
        pytest.param("rules: []\nrules: []", "rules is given twice", id="a key twice"),
        pytest.param("rules: [{pipeline: donut, header: {A: {}}}]", "rules.0.header.A", id="empty condition"),
        pytest.param(
            "rules: [{pipeline: donut, header: {A: {min: 3, max: 1}}}]", "min is above max", id="impossible range"
        ),
        pytest.param("rules: [{pipeline: donut, header: {A: {mim: 3}}}]", "header.A", id="misspelt condition"),
        pytest.param("rules: [{pipeline: donut, purposes: [SCIENCES]}]", "rules.0.purposes", id="unknown purpose"),
        pytest.param("[1, 2]", "document", id="a list"),
    ],
)
def test_a_mistake_names_file_and_field(tmp_path, text, field):
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_book([tmp_path, PACKAGED])
    assert field in caught.value.message


def test_an_unknown_pipeline_lists_the_known_ones():
    with pytest.raises(NotFoundError, match="quicklook"):
        load_pipeline("quiklook")


def test_a_wrong_payload_configuration_names_the_field(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "pipelines: [{name: a, version: '1', description: d, steps: [{payload: isr, config: {biass: false}}]}]"
    )
    with pytest.raises(ConfigurationError, match=r"isr\.biass"):
        make_payloads(load_pipeline("a", load_book([tmp_path])))


SITE = "pipelines: [{{name: a, version: '1', description: d, steps: [{{payload: assemble}}, {step}]}}]"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        pytest.param(
            "{payload: qualitee}",
            r"site\.yaml: pipelines\.0\.steps\.1\.payload: no payload named qualitee \(known: assemble, .*quality",
            id="unknown payload",
        ),
        pytest.param(
            "{payload: isr, config: {biass: false}}",
            r"site\.yaml: pipelines\.0\.steps\.1\.config: isr\.biass: no such setting, bias perhaps \(known: .*dark",
            id="misspelt setting",
        ),
        pytest.param(
            "{payload: donut, config: {n_max: 0}}", r"steps\.1\.config: donut\.n_max: .*greater than or equal to 1",
            id="impossible value",
        ),
    ],
)  # fmt: skip
def test_a_book_is_checked_against_its_payloads(tmp_path, step, message):
    (tmp_path / "site.yaml").write_text(SITE.format(step=step))
    book = load_book([tmp_path, PACKAGED])
    with pytest.raises(ConfigurationError, match=message):
        check_book(book)
    with pytest.raises(ConfigurationError, match=message):
        check_book(book, trusted=packaged_book())


def test_a_rule_for_a_camera_that_nobody_knows_is_a_mistake(tmp_path):
    (tmp_path / "site.yaml").write_text("rules: [{pipeline: donut}, {pipeline: donut, cameras: [LSSTcam]}]")
    with pytest.raises(ConfigurationError, match=r"site\.yaml: rules\.1\.cameras: no camera named LSSTcam .*LSSTCam"):
        check_book(load_book([tmp_path, PACKAGED]))


def test_the_packaged_pipelines_are_right():
    check_book(packaged_book())


def test_a_folder_that_is_not_there_is_a_mistake(monkeypatch, tmp_path):
    monkeypatch.setenv("RAPID_PIPELINE_PATH", str(tmp_path / "pipelnes"))
    with pytest.raises(ConfigurationError, match="pipelnes is no folder"):
        default_book()


@pytest.mark.parametrize(
    ("condition", "value", "is_met"),
    [
        ("{like: 'r_*'}", "R_57", True),
        ("{like: 'r_*'}", "g_6", False),
        ("{like: 'r_*'}", None, False),
        ("{min: 10, max: 20}", 20, True),
        ("{min: 10, max: 20}", 20.5, False),
        ("{min: 10}", "15", False),
        ("{max: 3}", None, False),
        ("{present: true}", "", True),
        ("{present: false}", None, True),
        ("{present: true}", None, False),
        ("[A, {min: 3}]", 4, True),
        ("[A, {min: 3}]", "B", False),
        ("1", True, False),
        ("true", True, True),
        ("1", 1.0, True),
    ],
)
def test_header_conditions(tmp_path, info_of, condition, value, is_met):
    (tmp_path / "site.yaml").write_text(f"rules: [{{pipeline: donut, header: {{KEY: {condition}}}}}]")
    book = load_book([tmp_path, PACKAGED])
    header = {} if value is None else {"KEY": value}
    assert (choose_pipeline(info_of("science"), header, book).name == "donut") is is_met


def test_a_pipeline_beside_another_one_runs_as_well_and_chooses_nothing(tmp_path, info_of):
    (tmp_path / "site.yaml").write_text(
        """
rules:
  - {pipeline: assemble, beside: true, image_types: [science]}
  - {pipeline: assemble, beside: true, image_types: [bias], needs: [no_such_module, also.not_there]}
  - {pipeline: bias, beside: true, image_types: [bias]}
"""
    )
    book = load_book([tmp_path, PACKAGED])

    def names(image_type):
        return [p.name for p in choose_pipelines(info_of(image_type), {}, book, purpose=Purpose.SCIENCE)]

    assert names("science") == ["quicklook", "assemble"]
    assert names("bias") == ["bias"]
    assert names("dark") == ["dark"]
    assert "no_such_module, also.not_there not installed" in str(book.rules[1])
    with pytest.raises(NotFoundError, match="rule for image type"):
        choose_pipelines(info_of("dark"), {}, book.model_copy(update={"rules": book.rules[:1]}))


def test_the_recorded_hash_follows_what_is_run_and_not_how_it_is_written(tmp_path):
    def pipeline_of(step):
        (tmp_path / "a.yaml").write_text(SITE.format(step=step))
        return load_pipeline("a", load_book([tmp_path]))

    plain = resolved_hash(pipeline_of("{payload: isr}"))
    assert resolved_hash(pipeline_of("{payload: isr, config: {bias: true}}")) == plain
    assert resolved_hash(pipeline_of("{payload: isr, config: {bias: false}}")) != plain


def test_overrides_change_the_hash_and_unknown_ones_are_refused():
    pipeline = load_pipeline("quicklook")
    changed = pipeline.with_config({"isr": {"flat": False}})
    assert changed.config_hash != pipeline.config_hash
    assert changed.steps[0].config["flat"] is False
    with pytest.raises(KeyError):
        pipeline.with_config({"nobody": {}})
