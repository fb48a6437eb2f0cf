"""What a payload author writes: a few lines, and the real system runs underneath."""

import textwrap
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

QUIET = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "replay.pytest_plugin")
"""No plugin of ours but the one that is tested."""

SKY = """
from typing import ClassVar

import numpy as np
import pytest
from payloads.plugin import PayloadConfig
from rapid.errors import PayloadError


class Sky:
    name: ClassVar[str] = "sky"
    version: ClassVar[str] = "1"

    class Config(PayloadConfig):
        percentile: float = 50.0
        breaks_on: int = -1

    def __init__(self, config):
        self.config = config

    def run(self, frame):
        if frame.detector.id == self.config.breaks_on:
            raise PayloadError("no sky here")
        frame.metrics["sky_adu"] = float(np.percentile(frame.image, self.config.percentile))


@pytest.mark.rapid_night(payload=Sky, exposures=1, config={"percentile": 40, "breaks_on": 98})
def test_sky(rapid_night):
    sky = rapid_night.metric("sky_adu")
    assert len(sky) == 8 and min(sky.values()) > 1000
    assert [row["detector"] for row in rapid_night.failures] == [98]
    assert "no sky here" in rapid_night.why()
    assert not rapid_night.is_complete
    with pytest.raises(KeyError, match="sky_adu"):
        rapid_night.metric("moon_adu")
"""


@pytest.fixture
def author(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a payload author's folder; pytest runs there as another process, as it does for them."""
    return pytester


def block_of(page: str, beginning: str) -> str:
    """Return the code block of a page of the documentation that begins with a comment."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"```python\n{beginning}\n", 1)[1].split("```", 1)[0]


def test_the_five_lines_of_the_documentation_pass_as_they_stand(author):
    author.makepyfile(
        skyquicklook=block_of("payloads.md", "# skyquicklook.py"), test_sky=block_of("replay.md", "# test_sky.py")
    )
    result = author.runpytest_subprocess("-q", *QUIET, timeout=280)
    result.assert_outcomes(passed=1)


def test_what_a_payload_refuses_is_told(author):
    author.makepyfile(test_sky=SKY)
    result = author.runpytest_subprocess("-q", *QUIET, timeout=280)
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param("nights=3", "got ['nights']", id="an option that is none"),
        pytest.param("plan=[{'kind': 'party'}]", "blocks.0", id="a plan that is not valid"),
        pytest.param("plan='nowhere.yaml'", "nowhere.yaml", id="a plan that is not there"),
        pytest.param("recording='nowhere.zip'", "nowhere.zip", id="a recording that is not there"),
        pytest.param("payload=3", "must be a payload class", id="no payload"),
        pytest.param("payload=type('Here', (), {'name': 'here', '__qualname__': 'f.<locals>.Here'})", "in a module", id="nowhere to import from"),
        pytest.param("camera='Kodak'", "Kodak", id="no such camera"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_marker_is_told_before_anything_starts(pytester, arguments, complaint):
    pytester.makepyfile(
        textwrap.dedent(f"""
        import pytest

        @pytest.mark.rapid_night({arguments})
        def test_it(rapid_night):
            pass
        """)
    )
    result = pytester.runpytest_inprocess(*QUIET)
    result.assert_outcomes(errors=1)
    assert complaint in result.stdout.str()
    assert "rapid_night" in result.stdout.str()


def test_the_marker_is_known_where_markers_must_be(pytester):
    result = pytester.runpytest_inprocess("--markers", *QUIET)
    result.stdout.fnmatch_lines(["*rapid_night(plan, recording, camera, *"])
