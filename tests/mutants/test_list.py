"""The list of mutants fits the source: each changes one place, names nights that are there, and is caught by its own."""

import pytest

from replay.nightbook import story_names
from tests.mutants.__main__ import ROOT, build, read_mutants


def test_every_mutant_changes_one_place_and_names_a_night():
    mutants = read_mutants()
    assert len(mutants) >= 10
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        assert mutant.nights
        assert set(mutant.nights) <= set(story_names())


@pytest.mark.parametrize("mutant", read_mutants()[:1], ids=lambda mutant: mutant.name)
def test_a_build_is_the_source_with_the_change(mutant, tmp_path):
    build(tmp_path / "tree", mutant)
    changed = (tmp_path / "tree" / mutant.file).read_text()
    assert changed == (ROOT / mutant.file).read_text().replace(mutant.find, mutant.replace)
    assert (tmp_path / "tree" / "replay" / "nights" / "clean" / "recording.json").exists()
