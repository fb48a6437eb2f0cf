"""Pipelines from YAML: found, checked, versioned."""

import pytest

from rapid.errors import ConfigurationError, NotFoundError
from rapid.pipeline.store import PACKAGED, choose_pipeline, default_book, load_book, load_pipeline
from rapid.worker.registry import make_payloads, payload_names

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
        pytest.param("rules: [{pipeline: nobody}]", "rules.pipeline", id="rule without pipeline"),
        pytest.param("rules: [{pipeline: quicklook, image_types: [sciance]}]", "image_types", id="unknown image type"),
        pytest.param("pipelines: [", "not YAML", id="not YAML"),
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


def test_overrides_change_the_hash_and_unknown_ones_are_refused():
    pipeline = load_pipeline("quicklook")
    changed = pipeline.with_config({"isr": {"flat": False}})
    assert changed.config_hash != pipeline.config_hash
    assert changed.steps[0].config["flat"] is False
    with pytest.raises(KeyError):
        pipeline.with_config({"nobody": {}})
