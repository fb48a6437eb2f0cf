"""A night with one bad flat sequence, by real processes on real raws: found, taken out, and what used it done again.

The truth is injected into the raws: in the second flats, one amp of one detector gets a fifth less light. The master that is
built of them calibrates its own inputs perfectly, and is certified; the exposures' own verification names the amp.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from astropy.io import fits

from rapid.camera.models import Camera
from rapid.camera.store import load_camera
from rapid.dispatch.models import Event, EventKind
from rapid.results import schema
from rapid.results.models import DetectorResult
from replay.simulate import NightSimulator, directory_sink
from tests.roles.conftest import Roles, roles
from tests.sinks.conftest import Call, Recorder, recorder
from tests.support.night import make_plan

__all__ = ["recorder", "roles"]

BLOCKS = [
    {"kind": "bias", "n": 3},
    {"kind": "dark", "n": 2, "exposure_time_s": 20.0},
    {"kind": "flat", "n": 3, "physical_filter": "r_57"},
    {"kind": "science", "n": 1, "physical_filter": "r_57"},
    {"kind": "flat", "n": 3, "physical_filter": "r_57"},
    {"kind": "science", "n": 2, "physical_filter": "r_57"},
]
BIASES, DARKS, GOOD_FLATS, BEFORE, BAD_FLATS, AFTER = (1, 2, 3), (4, 5), (6, 7, 8), (9,), (10, 11, 12), (13, 14)
BAD_DETECTOR, BAD_AMP, LIGHT = 94, "C05", 0.8

SITE = """
pipelines:
  - name: quicklook
    version: "1"
    description: The quick look, and how the light is spread once there is time.
    steps:
      - payload: isr
      - payload: quality
    afterburner:
      - payload: encircled_energy
"""


def exposure(seq_num: int) -> int:
    return 20261120 * 100_000 + seq_num


def darken(data: bytes, camera: Camera) -> bytes:
    """Return a raw in which one amp got less light."""
    amp = next(one for one in camera.by_id[BAD_DETECTOR].amps if one.name == BAD_AMP)
    with fits.open(io.BytesIO(data)) as hdus:
        pixels = np.array(hdus[amp.hdu].data)
        level = np.median(pixels[amp.serial_overscan.slices])
        lit = pixels[amp.data.slices]
        pixels[amp.data.slices] = np.rint(level + LIGHT * (lit - level)).astype(pixels.dtype)
        hdus[amp.hdu].data = pixels
        written = io.BytesIO()
        hdus.writeto(written)
    return written.getvalue()


class Night:
    """Takes a night's exposures block by block, and asks at the command line."""

    def __init__(self, roles: Roles, recorder: Recorder) -> None:
        self.roles, self.recorder = roles, recorder
        self.camera = load_camera("SmallCam9")
        put = directory_sink(roles.raws)
        self.is_bad = False
        self.gathered: set[str] = set()
        self.lines: list[str] = []
        self.heard = threading.Condition()

        def sink(key: str, data: bytes) -> None:
            if self.is_bad and self.camera.by_id[BAD_DETECTOR].name in key and ".fits" in key:
                data = darken(data, self.camera)
            put(key, data)

        self.simulator = NightSimulator(make_plan(BLOCKS), sink)

    def take(self, seq_nums: tuple[int, ...], *, is_bad: bool = False) -> None:
        self.is_bad = is_bad
        for planned in self.simulator.exposures:
            if planned.seq_num in seq_nums:
                for _ in self.simulator.take(planned):
                    pass

    def rapid(self, *words: str, status: int = 0) -> str:
        """Run a command; return what it prints."""
        found = subprocess.run(
            [sys.executable, "-m", "rapid", *words, "--camera", "SmallCam9"],
            env=dict(os.environ)
            | {"RAPID_DATA": str(self.roles.folder / "data"), "RAPID_REDIS_URL": self.roles.valkey.url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert found.returncode == status, found.stdout + found.stderr
        return found.stdout

    def wait_until(self, *wanted: str, timeout_s: float = 240.0) -> None:
        """Wait until batches are gathered; ``+quicklook`` means that an afterburner has joined all of its results."""
        left = set(wanted)

        def note(event: Event) -> bool:
            if event.kind is EventKind.SUMMARY_READY and event.data.get("n_finished") == 9:
                self.gathered.add(f"{event.exposure_id % 100} {event.batch_id.rpartition('.')[2]}")
            elif event.kind is EventKind.PRODUCTS_ADDED and event.data.get("n_afterburned") == 9:
                self.gathered.add(f"{event.exposure_id % 100} +quicklook")
            return left <= self.gathered

        if not left <= self.gathered:
            self.roles.wait_for(note, timeout_s=timeout_s)

    def result(self, seq_num: int) -> DetectorResult:
        """Return the science result of the detector whose flat is bad."""
        (found,) = self.roles.results.results(exposure(seq_num), pipeline="quicklook", detector=BAD_DETECTOR)
        return found

    # What systems outside are told

    def hear(self, call: Call) -> tuple[int, bytes, dict[str, str]]:
        with self.heard:
            self.lines += call.body.decode().splitlines()
            self.heard.notify_all()
        return 204, b"", {}

    def wait_for_lines(self, calib_of: dict[int, str], *, after: int = 0) -> int:
        """Wait until InfluxDB was sent a detector's numbers, its afterburner's too, as measured with these flats.

        Return how many lines it was sent in all.
        """

        def has_come() -> bool:
            return all(
                any(
                    line.startswith("rapid_detector,")
                    and ",detector=R22_S11," in line
                    and f"exposure={exposure(seq_num)}i" in line
                    and "n_ee_stars=" in line
                    and calib_id in line
                    for line in self.lines[after:]
                )
                for seq_num, calib_id in calib_of.items()
            )

        with self.heard:
            assert self.heard.wait_for(has_come, timeout=120), self.lines[-3:]
            return len(self.lines)

    def points(self, lines: list[str]) -> dict[str, str]:
        """Return the newest values of every point, by what identifies it: measurement, tags and time."""
        found = {}
        for line in lines:
            match = re.match(r"((?:[^ \\]|\\.)+) (.*) (\d+)$", line)
            assert match is not None, line
            found[f"{match[1]} {match[3]}"] = match[2]
        return found

    def rows(self) -> dict[tuple, tuple]:
        """Return every result row, by what identifies it."""
        t = schema.detector_result.c
        with self.roles.results.engine.connect() as connection:
            rows = connection.execute(sa.select(t.exposure, t.pipeline, t.detector, t.finished_at, t.document))
            return {tuple(row[:3]): (row[3], json.dumps(row[4], sort_keys=True)) for row in rows}

    def versions(self) -> dict[tuple[int, str], tuple[int, bool]]:
        """Return version and completeness of every summary."""
        found = self.roles.results.summaries("SmallCam9", day_obs=20261120)
        return {(one.exposure, one.pipeline): (one.version, one.is_complete) for one in found}

    def files(self) -> dict[str, str]:
        """Return the checksum of every product and calib."""
        data = self.roles.folder / "data"
        return {
            str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in ("products", "calibs")
            for path in sorted((data / folder).rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def night(roles: Roles, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "site.yaml").write_text(SITE)
    monkeypatch.setenv("RAPID_PIPELINE_PATH", str(folder))
    night = Night(roles, recorder)
    recorder.answer = night.hear
    roles.start("head", "head", gather_timeout_s=300, regather_timeout_s=330, deadline_s=600)
    roles.start("gather", "gather")
    roles.start("publish", "publish", publish_influx=json.dumps({"url": recorder.url, "database": "rapid"}))
    for name in ("worker-0", "worker-1"):
        roles.start("worker", name, lease_ms=20_000)
    yield night
    night.simulator.close()


@pytest.mark.timeout(600)
def test_a_bad_flat_is_found_taken_out_and_exactly_what_used_it_is_done_again(night: Night):
    # The afternoon: masters are built by policy, each from its whole sequence.
    night.take(BIASES)
    night.wait_until("3 build_bias")
    night.take(DARKS)
    night.wait_until("5 build_dark")
    night.take(GOOD_FLATS)
    night.wait_until("8 build_flat")
    night.take(BEFORE)
    night.take(BAD_FLATS, is_bad=True)
    night.wait_until("12 build_flat")
    night.take(AFTER)
    night.wait_until("9 +quicklook", "13 +quicklook", "14 +quicklook", "8 build_defects")

    # Found: the exposures' verification names the amp, on each of the bad ones and on none of the good ones.
    for seq_num in GOOD_FLATS:
        night.rapid("calib", "verify", str(exposure(seq_num)))
    for seq_num in BAD_FLATS:
        told = night.rapid("calib", "verify", str(exposure(seq_num)), status=1)
        assert "R22_S11" in told
        assert f"{BAD_AMP} RATIO" in told
    history = json.loads(night.rapid("calib", "trend", "flat_level_e", "-d", "R22_S11", "--pipeline", "flat", "--json"))
    (series,) = history["series"]
    at = {number: place for place, number in enumerate(series["exposures"])}
    for amp, levels in series["amps"].items():
        bad_level = np.median([levels[at[exposure(n)]] for n in BAD_FLATS])
        good_level = np.median([levels[at[exposure(n)]] for n in GOOD_FLATS])
        if amp:
            assert bad_level / good_level == pytest.approx(LIGHT if amp == BAD_AMP else 1.0, abs=0.02), amp
    flats = json.loads(night.rapid("calib", "list", "--kind", "flat", "--detector", "94", "--json"))
    bad, good = [one["calib_id"] for one in flats]
    assert [one["state"] for one in flats] == ["certified", "certified"], "a master calibrates its own inputs well"
    assert flats[0]["inputs"] == [exposure(n) for n in BAD_FLATS]
    used = {n: night.result(n).provenance.calibs["flat"] for n in (*BEFORE, *AFTER)}
    assert used == {9: good, 13: bad, 14: bad}

    # Taken out: exactly what used it is named ...
    n_told = night.wait_for_lines(used)
    rows, files, versions = night.rows(), night.files(), night.versions()
    night.rapid("calib", "exclude", bad, "--reason", "a fifth of the light is missing in C05")
    affected = json.loads(night.rapid("calib", "affected", bad, "--json"))
    assert [(one["exposure"], one["pipeline"], one["detectors"]) for one in affected["batches"]] == [
        (exposure(n), "quicklook", [BAD_DETECTOR]) for n in (14, 13)
    ]
    assert affected["built"] == []
    night.gathered -= {"13 +quicklook", "14 +quicklook"}
    told = night.rapid("calib", "redo", bad, "--wait", "--timeout", "120")
    assert told.startswith("2 of 2 results of 2 exposures done again")
    night.wait_until("13 +quicklook", "14 +quicklook")  # their afterburner as well

    # ... done again, and nothing else is touched.
    after = night.rows()
    redone = {(exposure(n), "quicklook", BAD_DETECTOR) for n in AFTER}
    assert after.keys() == rows.keys()
    assert {key for key in after if after[key] != rows[key]} == redone
    for n in AFTER:
        result = night.result(n)
        assert result.provenance.calibs["flat"] == good
        assert result.provenance.afterburner is not None
    now = night.versions()
    assert {n for n in now if now[n] != versions[n]} == {(exposure(n), "quicklook") for n in AFTER}
    assert all(now[exposure(n), "quicklook"] == (versions[exposure(n), "quicklook"][0] + 1, True) for n in AFTER)
    files_now = night.files()
    names = ("2026112000013", "2026112000014", "000013", "000014")
    changed = {name for name in files if files_now.get(name) != files[name]}
    assert changed, "the images of the detector are new"
    assert all(any(n in name for n in names) and "R22_S11." in name for name in changed), sorted(changed)
    assert json.loads(night.rapid("calib", "affected", bad, "--json"))["n_results"] == 0

    # Systems outside were told of the detector's new numbers; every other point of theirs is what it was.
    night.wait_for_lines(dict.fromkeys(AFTER, good), after=n_told)
    before, told = night.points(night.lines[:n_told]), night.points(night.lines[n_told:])
    differ = {point for point in told.keys() & before.keys() if told[point] != before[point]}
    of_redone = {
        point
        for point, values in {**before, **told}.items()
        if (",detector=R22_S11," in point or point.startswith("rapid_exposure,"))
        and any(f"exposure={exposure(n)}i" in values for n in AFTER)
    }
    assert differ <= of_redone, sorted(differ - of_redone)
    assert sum(point.startswith("rapid_detector,") for point in differ) == len(AFTER)
    assert night.roles.stop("publish") == 0
