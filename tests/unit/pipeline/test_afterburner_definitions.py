"""What a pipeline file may say of an afterburner, and how mistakes are told."""

from pathlib import Path

import pytest

from rapid.errors import ConfigurationError
from rapid.pipeline.store import load_book
from rapid.worker.registry import check_book, resolved_hash

HEAD = """
pipelines:
  - name: look
    version: "3"
    description: A look.
    pool: slow
    steps: [{payload: isr, config: {flat: false}}, {payload: quality}]
"""
GOOD = HEAD + "    afterburner: [{payload: encircled_energy, config: {n_max_stars: 5}}]\n    after_time_limit_s: 33\n"


def book_of(folder: Path, text: str):
    (folder / "site.yaml").write_text(text)
    return load_book([folder])


def test_the_afterburner_is_a_pipeline_of_the_first_step_and_its_own(tmp_path):
    book = book_of(tmp_path, GOOD)
    check_book(book)
    after = book.get("look_after")
    assert [step.payload for step in after.steps] == ["isr", "encircled_energy"]
    assert after.steps[0].config == {"flat": False}
    assert (after.version, after.pool, after.time_limit_s) == ("3", "slow", 33.0)
    assert after.after is None
    assert book.names == ("look",)
    assert book.beside == {"look_after"}


def test_what_the_results_were_made_with_does_not_depend_on_the_afterburner(tmp_path):
    with_after = book_of(tmp_path, GOOD).get("look")
    without = book_of(tmp_path, HEAD).get("look")
    assert resolved_hash(with_after) == resolved_hash(without)
    assert book_of(tmp_path, HEAD).get("look_after") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "    afterburner: [{payload: nothing}]\n", "afterburner.0.payload: no payload named nothing"),
        (HEAD + "    afterburner: [{payload: encircled_energy, config: {n_stars: 1}}]\n", "no such setting"),
        (HEAD + "    afterburner: [{payload: quality}]\n", "quality is one of the pipeline's steps"),
        (HEAD + "    builds: bias\n    afterburner: [{payload: encircled_energy}]\n", "cannot have an afterburner"),
        (HEAD.replace("name: look", "name: look_after"), "names that end in _after are those of afterburners"),
        (GOOD + "rules: [{pipeline: look_after, image_types: [science]}]\n", "runs by itself"),
        (HEAD + "    after_time_limit_s: 0\n", "greater than 0"),
    ],
    ids=["unknown", "setting", "twice", "build", "name", "rule", "time"],
)
def test_mistakes_are_told_with_their_place(tmp_path, text, words):
    with pytest.raises(ConfigurationError) as told:
        check_book(book_of(tmp_path, text))
    assert words in told.value.message
    assert "site.yaml" in told.value.message
