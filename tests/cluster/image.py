"""Carry out the Dockerfile without a container engine: its own lines, in a bare Debian made by debootstrap.

    python -m tests.cluster.image [--keep FOLDER]

FROM becomes a fresh root (Debian bookworm, whose Python is the 3.11 of the image), COPY copies what .dockerignore lets
through, RUN runs in a chroot, ENV and USER hold from there on. Then the entry point runs as the image's user. Needs
root, debootstrap and 6 GB; not part of `make test`. What it cannot show: layers, the base image itself, an engine.
"""

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ("python3", "python3-venv", "python3-pip", "ca-certificates", "libgomp1", "python-is-python3")
"""What the base image python:3.11-slim has and Debian's minimal root has not."""


@dataclass
class Stage:
    """One FROM and what it has come to."""

    root: Path
    workdir: str = "/"
    user: str = "0:0"
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continuation lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def is_ignored(path: str, rules: list[str]) -> bool:
    """Whether .dockerignore leaves a path out: the last rule that fits decides."""
    ignored = False
    for rule in rules:
        pattern = rule.lstrip("!").removeprefix("**/")
        parts = Path(path).parts
        fits = any(fnmatch.fnmatch(part, pattern) for part in parts) if rule.lstrip("!") != pattern else (
            fnmatch.fnmatch(parts[0], pattern)
        )  # fmt: skip
        if fits:
            ignored = not rule.startswith("!")
    return ignored


def copy_from_context(source: str, target: Path, rules: list[str]) -> None:
    """COPY one file or folder of the checkout."""
    begin = ROOT / source
    files = [begin] if begin.is_file() else [path for path in begin.rglob("*") if path.is_file()]
    for path in files:
        relative = path.relative_to(ROOT)
        if is_ignored(str(relative), rules):
            continue
        inside = path.name if begin.is_file() else str(path.relative_to(begin))
        place = target / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)


def run(stage: Stage, command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a stage's root."""
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/tmp"} | stage.environment  # noqa: S108
    settings = [f"{name}={value}" for name, value in variables.items()]
    keep = [
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.lower().endswith(("_proxy", "index_url", "ssl_cert_file"))
    ]
    inside = f"cd {shlex.quote(stage.workdir)} && exec {shlex.join(command)}"
    return subprocess.run(
        ["chroot", f"--userspec={stage.user}", str(stage.root), "/usr/bin/env", "-i", *keep, *settings, "/bin/sh", "-c", inside],
        text=True, check=check, capture_output=not check,
    )  # fmt: skip


def make_root(folder: Path, name: str) -> Path:
    """Make a bare Debian once, and a copy of it for every FROM."""
    bare = folder / "bare"
    if not bare.is_dir():
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(EXTRA)}", "bookworm", str(bare)], check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for path in ("/etc/resolv.conf", "/etc/pip.conf", "/etc/uv/uv.toml"):
            if Path(path).is_file():
                (bare / path[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, bare / path[1:])
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        if bundle.is_file():  # the machine's own, e.g. with a mirror's
            shutil.copy2(bundle, bare / "etc/ssl/certs/ca-certificates.crt")
    root = folder / name
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "-a", str(bare), str(root)], check=True)
    return root


def build(folder: Path) -> Stage:
    """Carry out every instruction; return the last stage."""
    rules = (ROOT / ".dockerignore").read_text().split()
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in instructions((ROOT / "Dockerfile").read_text()):
        begin = time.monotonic()
        if word == "ARG":
            continue
        if word == "FROM":
            name = rest.split(" AS ")[1] if " AS " in rest else "image"
            stage = stages[name] = Stage(make_root(folder, name))
        elif word == "WORKDIR":
            stage.workdir = rest
            (stage.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            for part in shlex.split(rest):
                key, value = part.split("=", 1)
                path = stage.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
                stage.environment[key] = value.replace("$PATH", path)
        elif word == "USER":
            stage.user = rest
        elif word == "COPY" and rest.startswith("--from="):
            origin, source, target = re.match(r"--from=(\S+) (\S+) (\S+)", rest).groups()  # type: ignore[union-attr]
            subprocess.run(
                ["cp", "-a", str(stages[origin].root / source[1:]), str(stage.root / target[1:])], check=True
            )
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                place = stage.root / stage.workdir[1:] / ("" if target == "./" else target)
                copy_from_context(source, place, rules)
        elif word == "RUN":
            run(stage, ["/bin/sh", "-c", rest])
        elif word == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        print(f"{time.monotonic() - begin:7.1f} s  {word} {rest[:90]}", flush=True)
    return stage


def main() -> None:
    """Build, then use what was built as a pod would."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--keep", type=Path, help="Folder for the roots; a temporary one, removed, if left out.")
    arguments = parser.parse_args()
    if os.geteuid() or not shutil.which("debootstrap"):
        sys.exit("needs root and debootstrap (apt-get install debootstrap)")
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="rapid-image-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        stage = build(folder)
        begin = time.monotonic()
        print(run(stage, [*stage.entrypoint, "--help"], check=False).stdout[:300])
        print(f"{time.monotonic() - begin:.1f} s to --help")
        stage.environment |= {"NUMBA_CACHE_DIR": "/tmp/numba"}  # noqa: S108
        prepared = run(stage, ["cp", "-a", "/opt/rapid/kernels", "/tmp/numba"], check=False)  # noqa: S108
        print("kernels", "copied" if prepared.returncode == 0 else prepared.stderr)
        begin = time.monotonic()
        warm = run(stage, [*stage.entrypoint, "warm-up", "--json"], check=False)
        print(
            f"{time.monotonic() - begin:.1f} s for all kernels from the image: {warm.stdout.strip()} {warm.stderr[-500:]}"
        )
        wrote = run(stage, ["touch", "/opt/rapid/x"], check=False)
        print("its user may not write to the image" if wrote.returncode else "ITS USER MAY WRITE TO THE IMAGE")
        size = sum(path.lstat().st_size for path in (stage.root / "opt/rapid").rglob("*"))
        parts = json.loads((stage.root / "opt/rapid/sbom.cdx.json").read_text())["components"]
        print(f"/opt/rapid {size / 1e9:.2f} GB, {len(parts)} components in its bill of materials")
        if wrote.returncode == 0 or warm.returncode or prepared.returncode:
            sys.exit(1)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
