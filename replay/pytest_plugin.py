"""A mini night through the real system, for tests of payloads: fixture and marker ``rapid_night``.

Installed with us, pytest finds it by itself. Head, workers, gather and a Valkey run as processes of their own in the
test's temporary folder; a payload that is given to the marker is registered for them alone. See docs/replay.md.
"""

import inspect
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from replay.plan import PlannedExposure
    from replay.recording import Recording, SummaryFacts

MARKER = "rapid_night"

CAMERA = "MiniCam9"
CAMERA_YAML = f"""
name: {CAMERA}
base: TestCam205
only: R22
code: MN
"""
"""Nine CCDs of 250 x 248 pixels: an exposure takes a second on two cores."""

OPTIONS: dict[str, Any] = {
    "plan": None,
    "recording": None,
    "camera": None,
    "exposures": 2,
    "payload": None,
    "after": ("assemble",),
    "config": None,
    "workers": 1,
    "rate": math.inf,
    "seed": None,
    "settings": None,
    "stall_s": 120.0,
    "strict": True,
}
"""What the marker takes, with the defaults."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(plan, recording, camera, exposures, payload, after, config, workers, rate, seed, settings, "
        "stall_s, strict): the night that fixture rapid_night plays through the real system",
    )


@dataclass
class PlayedNight:
    """What came of a night.

    Attributes
    ----------
    recording
        Results, summaries and invariants, as `rapid replay check` compares them.
    failures
        Jobs that failed for good: rows of the results store, with ``code`` and ``message``.
    folder
        Raws, products, results and logs of the system.
    """

    recording: "Recording"
    failures: list[dict[str, Any]]
    folder: Path
    pipeline: str | None = None
    truth: "Mapping[int, PlannedExposure]" = field(default_factory=dict)

    def metric(self, name: str, *, pipeline: str | None = None) -> dict[tuple[int, int], Any]:
        """Return a metric by exposure id and detector number; of the marker's payload's pipeline if there is one.

        Raises
        ------
        KeyError
            Raised if no result has it, with what there is.
        """
        wanted = pipeline or self.pipeline
        tables = [table for table in self.recording.results if wanted in {None, table.pipeline}]
        found = {
            (table.exposure, detector): table.metrics[name][place]
            for table in tables
            if name in table.metrics
            for place, detector in enumerate(table.detectors)
        }
        if not found:
            known = sorted({metric for table in tables for metric in table.metrics})
            raise KeyError(f"no result has {name}; failed: {self.why()}; there are: {', '.join(known) or 'none'}")
        return found

    @property
    def summaries(self) -> "list[SummaryFacts]":
        """The newest summary of each exposure and pipeline."""
        return self.recording.summaries

    @property
    def is_complete(self) -> bool:
        """Whether every detector of every exposure has a result."""
        return bool(self.summaries) and all(summary.is_complete for summary in self.summaries)

    def why(self) -> str:
        """Return, in one line, what failed."""
        said = sorted({f"{row['code']}: {row['message']}" for row in self.failures})
        return "; ".join(said[:3]) or "nothing"


@pytest.fixture
def rapid_night(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedNight:
    """Play the night that the test's marker ``rapid_night`` describes, and return what came of it."""
    marker = request.node.get_closest_marker(MARKER)
    given = dict(marker.kwargs) if marker else {}
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown or (marker and marker.args):
        pytest.fail(
            f"marker {MARKER}: takes keywords {', '.join(OPTIONS)}; got {unknown or marker.args}", pytrace=False
        )
    return play_night(tmp_path / "night", monkeypatch, **(OPTIONS | given))


def play_night(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> PlayedNight:
    """Play a night; see the marker's options."""
    from rapid.errors import RapidError
    from rapid.results.store import open_results
    from replay.system import SystemOptions, replay_night

    definitions = folder.with_name(f"{folder.name}-definitions")
    definitions.mkdir(parents=True)
    try:
        night = _night(definitions, monkeypatch, options)
        pipeline = _register(definitions, monkeypatch, options, night) if options["payload"] is not None else None
        found = replay_night(
            night,
            folder,
            rate=options["rate"],
            options=SystemOptions(n_workers=options["workers"], settings=options["settings"]),
            stall_s=options["stall_s"],
        )
    except RapidError as error:
        pytest.fail(f"{MARKER}: {error}", pytrace=False)
    results = open_results(str(folder / "data" / "results.sqlite"))
    try:
        failures = results.failures(found.manifest.camera, limit=1000)
    finally:
        results.close()
    broken = {name: problems for name, problems in found.manifest.invariants.items() if problems}
    if broken and options["strict"]:
        text = "\n".join(f"{name}: {problem}" for name, problems in broken.items() for problem in problems)
        pytest.fail(f"{MARKER}: the system did not keep its promises\n{text}", pytrace=False)
    return PlayedNight(found, failures, folder, pipeline, found.exposures)


def _night(definitions: Path, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any]) -> "Recording":
    """Return the night to play."""
    from rapid.wiring.camera import adopt_camera
    from replay.plan import load_plan, make_plan
    from replay.planned import recording_of_plan
    from replay.recording import read_recording

    # Whatever is adopted here is forgotten after the test.
    monkeypatch.setenv("RAPID_CAMERA_PATH", os.environ.get("RAPID_CAMERA_PATH", ""))
    if options["recording"] is not None:
        return read_recording(Path(options["recording"]))
    plan = options["plan"]
    if isinstance(plan, str | Path):
        return recording_of_plan(load_plan(Path(plan)))
    camera_yaml = ""
    camera = options["camera"]
    if camera is None:
        (definitions / f"{CAMERA}.yaml").write_text(CAMERA_YAML, encoding="utf-8")
        camera, camera_yaml = adopt_camera(str(definitions / f"{CAMERA}.yaml")).name, CAMERA_YAML
    facts: dict[str, Any] = {"camera": camera, "day_obs": 20261120, "seed": 5, "stars_per_detector": 25}
    if isinstance(plan, Mapping):
        facts |= plan
    else:
        band = "r_57"
        facts["blocks"] = plan or [{"kind": "science", "n": options["exposures"], "physical_filter": band}]
    if options["seed"] is not None:
        facts["seed"] = options["seed"]
    night = recording_of_plan(make_plan(facts))
    return night.with_manifest(camera_yaml=camera_yaml) if night.manifest.camera == CAMERA else night


def _register(
    definitions: Path, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any], night: "Recording"
) -> str:
    """Let the system's processes know a payload, and run it on every image of the night; return the pipeline's name."""
    import yaml

    payload = options["payload"]
    name = getattr(payload, "name", None)
    if not inspect.isclass(payload) or not isinstance(name, str):
        pytest.fail(f"{MARKER}: payload must be a payload class, got {payload!r}", pytrace=False)
    if "<locals>" in payload.__qualname__ or payload.__module__ == "__main__":
        pytest.fail(f"{MARKER}: {payload.__qualname__} must be defined in a module: workers import it", pytrace=False)
    module = sys.modules[payload.__module__]
    source = Path(inspect.getfile(module)).resolve()
    # The folder that the module's name is looked up from: above its packages.
    root = source.parents[payload.__module__.count(".") + (source.name == "__init__.py")]
    # What an installed package would say of itself.
    facts = definitions / "rapid_night_payload-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: rapid-night-payload\nVersion: 0\n")
    (facts / "entry_points.txt").write_text(
        f"[rapid.payloads]\n{name} = {payload.__module__}:{payload.__qualname__}\n", encoding="utf-8"
    )
    types = sorted({exposure.image_type.value for exposure in night.exposures.values()})
    steps = [{"payload": step} for step in options["after"]]
    pipeline = f"night_{name}"
    book = {
        "pipelines": [
            {
                "name": pipeline,
                "version": "1",
                "description": "The payload that is tested.",
                "steps": [*steps, {"payload": name, "config": dict(options["config"] or {})}],
            }
        ],
        "rules": [{"pipeline": pipeline, "image_types": types}],
    }
    (definitions / "pipelines").mkdir()
    (definitions / "pipelines" / "night.yaml").write_text(yaml.safe_dump(book), encoding="utf-8")
    _prepend(monkeypatch, "RAPID_PIPELINE_PATH", str(definitions / "pipelines"))
    _prepend(monkeypatch, "PYTHONPATH", str(root))
    _prepend(monkeypatch, "PYTHONPATH", str(definitions))
    return pipeline


def _prepend(monkeypatch: pytest.MonkeyPatch, variable: str, folder: str) -> None:
    before = os.environ.get(variable)
    monkeypatch.setenv(variable, f"{folder}{os.pathsep}{before}" if before else folder)
