"""The worked example of docs/payloads.md, installed as its user would, beside us and not into us."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def install(source: Path, target: Path, scratch: Path) -> None:
    """Install a package into a folder, without network: what it needs is here."""
    copy = scratch / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--offline", "--python", sys.executable]
    done = subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--target", str(target), str(copy)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def allsky(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a machine on which the example is installed."""
    folder = tmp_path_factory.mktemp("allsky")
    install(EXAMPLES / "allsky_quicklook", folder / "site-packages", folder)
    return dict(os.environ) | {"PYTHONPATH": str(folder / "site-packages")}
