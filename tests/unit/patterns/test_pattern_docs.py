"""The page about patterns says what the code does."""

from pathlib import Path

import pytest

from rapid.camera.store import load_camera
from rapid.patterns import PatternError, list_patterns, parse_pattern

PAGE = (Path(__file__).resolve().parents[3] / "docs/patterns.md").read_text()


@pytest.mark.parametrize("known", list_patterns(), ids=lambda known: known.name)
def test_every_pattern_is_on_the_page(known):
    table = PAGE.split("## Names")[1].split("## Expressions")[0]
    assert f"`{known.name}" in table


def test_the_message_on_the_page_is_that_of_the_program():
    shown = PAGE.split("$ rapid patterns 'ccd_checkerboard & e2w'\n")[1].split("```")[0]
    with pytest.raises(PatternError) as caught:
        parse_pattern("ccd_checkerboard & e2w").detectors(load_camera("LSSTCam"))
    assert shown.strip() == f"rapid: {caught.value.message}"


def test_the_example_in_python_runs():
    example = PAGE.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(example, names)  # noqa: S102 - the page's own example
    phases = names["pattern"].phases(names["camera"], named={"mine": "R22,R33"})
    assert f"# {phases}" in example
