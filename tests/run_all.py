"""Run everything that `make test` promises, and stop at the first part that fails.

Lint, types and the architecture first: they take seconds. Then the tests, two at a time, with branch
coverage; doctests last. A browser and InfluxDB are installed if the
machine has none and lets us.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


TESTS_FAILED = 1
MAX_RETRIED = 5
"""More failures than this are no accident of a busy machine."""


def attempt(title: str, *command: str) -> int:
    """Run one part; return its status."""
    print(f"\n== {title}", flush=True)
    begin = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"-- {title}: {'ok' if status == 0 else f'status {status}'}, {time.monotonic() - begin:.0f} s", flush=True)
    return status


def run(title: str, *command: str) -> None:
    """Run one part; exit with its status if it fails."""
    if status := attempt(title, *command):
        sys.exit(status)


def failed_tests() -> list[str]:
    """Return the tests that failed in the run before."""
    try:
        return list(json.loads((ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed").read_text()))
    except FileNotFoundError:
        return []


def install_browser() -> None:
    """Install Debian's Chromium for the tests of the pages, if there is none."""
    if any(shutil.which(name) for name in CHROMIUM) or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    print("\n== installing Chromium for the tests of the pages", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "check": False}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], env=environment, **quiet)
    packages = ["chromium", "fonts-dejavu-core"]
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], env=environment, **quiet)


def install_influx() -> None:
    """Install Debian's InfluxDB for the tests of metric sinks, if there is none; without it they are skipped."""
    if shutil.which("influxd") or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    print("\n== installing InfluxDB for the tests of metric sinks", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "check": False}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], env=environment, **quiet)
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "influxdb"], env=environment, **quiet)


def main() -> None:
    """Run all parts; arguments are handed to pytest."""
    begin = time.monotonic()
    python = str(BIN / "python")
    run("ruff", str(BIN / "ruff"), "check", ".")
    run("format", str(BIN / "ruff"), "format", "--check", ".")
    run("mypy", str(BIN / "mypy"))
    run("architecture", str(BIN / "lint-imports"))
    install_browser()
    install_influx()
    run(
        "doctests",
        python,
        "-m",
        "pytest",
        "-q",
        "--doctest-modules",
        "rapid",
        "payloads",
        "replay",
        "--ignore",
        "rapid/results/migrations",
    )
    workers = os.environ.get("RAPID_TEST_WORKERS", "2")
    arguments = sys.argv[1:] or ["tests"]
    pytest = (python, "-m", "pytest")
    options = ("-n", workers, "--dist", "loadfile", "--durations", "10", "--cov", "--cov-report", "term:skip-covered")
    if status := attempt("tests", *pytest, *options, *arguments):
        n_failed = len(failed_tests())
        if status != TESTS_FAILED or not 0 < n_failed <= MAX_RETRIED:
            sys.exit(status)
        print(f"\n!! {n_failed} failed beside the others: once more, alone; what passes now is flaky and wants a fix")
        run(
            "failed tests, alone", *pytest, "--last-failed", "--last-failed-no-failures", "none", "-p", "no:xdist", "-v"
        )
    print(f"\nall parts passed in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
