"""Pipelines that cost next to nothing, for tests of everything around them: no kernel to compile, no image to measure."""

from pathlib import Path
from typing import Protocol

PIPELINES = """
pipelines:
  - {name: quicklook, version: light, description: Assemble only., steps: [{payload: assemble}]}
  - {name: donut, version: light, description: Assemble only., steps: [{payload: assemble}]}
"""


class Environment(Protocol):
    """What sets a variable for this process and those it starts: pytest's monkeypatch, or `os.environ` behind one."""

    def setenv(self, name: str, value: str) -> None: ...


def use_light_pipelines(folder: Path, environment: Environment) -> None:
    """Let this process, and those it starts, run sky images through the light pipelines."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "light.yaml").write_text(PIPELINES)
    environment.setenv("RAPID_PIPELINE_PATH", str(folder))
