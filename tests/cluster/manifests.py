"""Our manifests, rendered by the real kubectl."""

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).resolve().parents[2] / "k8s"
OVERLAYS = tuple(sorted(path.name for path in (K8S / "overlays").iterdir() if path.is_dir()))

needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed on this machine")


@lru_cache(maxsize=16)
def render(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return the objects that `kubectl kustomize` makes of a folder."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return tuple(item for item in yaml.safe_load_all(done.stdout) if item)


def pods_of(objects: tuple[dict[str, Any], ...]) -> list[tuple[str, dict[str, Any]]]:
    """Return name and pod spec of everything that makes pods."""
    return [
        (item["metadata"]["name"], item["spec"]["template"]["spec"])
        for item in objects
        if item["kind"] in {"Deployment", "StatefulSet"}
    ]
