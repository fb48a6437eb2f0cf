"""What installed packages add: found by entry point, and harmless where they are broken."""

from pathlib import Path

import pytest

from rapid.arrival.decide import FileKind, kind_of
from rapid.camera.store import list_cameras, load_camera
from rapid.errors import ConfigurationError, NotFoundError
from rapid.exposure.formats import FitsFormat, format_names, format_of, load_format, parse_name
from rapid.pipeline.models import PipelineBook
from rapid.pipeline.store import load_book, packaged_book
from rapid.plugins import definition_folders, entries_of, load_entry
from rapid.wiring.pools import other_pools, own_pools, warm_pipelines

MODULE = """
class Dots:
    reads_whole = True
    def parse_name(self, path):
        from rapid.exposure.naming import RawName
        return RawName(exposure_id=7) if path.endswith(".dots") else None
    def read(self, data, *, uri, camera):
        raise NotImplementedError
class Half:
    pass
"""
ENTRIES = """
[rapid.formats]
dots = theirs:Dots
half = theirs:Half
gone = no_such_module:Format
crash = theirs_crash:Format

[rapid.definitions]
theirs = theirs_data
"""
CAMERA = "base: LATISS\nname: DotCam\naliases: []\ncode: DC\nraw_format: dots\n"


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package beside us, as pip would leave it."""
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "theirs.py").write_text(MODULE)
    (tmp_path / "theirs_crash.py").write_text("1 / 0\n")
    (tmp_path / "theirs_data" / "cameras").mkdir(parents=True)
    (tmp_path / "theirs_data" / "__init__.py").touch()
    (tmp_path / "theirs_data" / "cameras" / "DotCam.yaml").write_text(CAMERA)
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = (entries_of, definition_folders, load_format)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def test_a_packages_camera_and_format_are_known(theirs):
    assert "DotCam" in list_cameras()
    camera = load_camera("DotCam")
    assert camera.raw_format == "dots"
    assert type(load_format("dots")).__name__ == "Dots"
    assert format_names() == ("fits", "crash", "dots", "gone", "half")


def test_a_camera_sees_only_files_of_its_own_format(theirs):
    camera, latiss = load_camera("DotCam"), load_camera("LATISS")
    fits, dots = "AT_O_20261120_000001_R00_S00.fits", "a/night.dots"
    assert [kind_of(name, camera) for name in (fits, dots)] == [FileKind.OTHER, FileKind.RAW]
    assert [kind_of(name, latiss) for name in (fits, dots)] == [FileKind.RAW, FileKind.OTHER]
    assert [kind_of(name) for name in (fits, dots, "x.txt")] == [FileKind.RAW, FileKind.RAW, FileKind.OTHER]
    assert kind_of("MC_O_20261120_000001_expectedSensors.json", camera) is FileKind.EXPECTED_SENSORS
    assert parse_name(dots).exposure_id == 7
    assert type(format_of(dots)).__name__ == "Dots"
    assert isinstance(format_of("nobody.knows"), FitsFormat)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("gone", ConfigurationError, "format gone: cannot import no_such_module:Format"),
        ("crash", ConfigurationError, "ZeroDivisionError"),
        ("half", ConfigurationError, "Half lacks reads_whole, parse_name, read"),
        ("dotz", NotFoundError, r"no format named dotz \(known: crash, dots, gone, half\)"),
    ],
)
def test_a_broken_format_is_named(theirs, name, error, message):
    with pytest.raises(error, match=message):
        load_format(name)


def test_definitions_that_cannot_be_found_are_a_mistake(theirs):
    (theirs / "theirs-1.dist-info" / "entry_points.txt").write_text("[rapid.definitions]\nx = no_such_package\n")
    entries_of.cache_clear()
    with pytest.raises(ConfigurationError, match="no_such_package is no package"):
        definition_folders("cameras")


def test_metadata_left_in_the_way_hides_nothing(theirs):
    stale = theirs / "first" / "rapid_analysis.egg-info"
    stale.mkdir(parents=True)
    (stale / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: rapid-analysis\nVersion: 0\n")
    (stale / "entry_points.txt").write_text("[rapid.payloads]\nold = old:Old\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(theirs / "first"))
        entries_of.cache_clear()
        assert {"old", "isr", "quality"} <= entries_of("rapid.payloads").keys()
    with pytest.raises(NotFoundError, match="no payload named nobody"):
        load_entry("rapid.payloads", "nobody")


# Pools


def book_with(tmp_path: Path, pool: str) -> PipelineBook:
    (tmp_path / "site.yaml").write_text(
        f"""
pipelines:
  - {{name: slow, version: "1", description: d, pool: {pool}, steps: [{{payload: assemble}}]}}
  - {{name: quick, version: "1", description: d, steps: [{{payload: isr}}, {{payload: quality}}]}}
  - {{name: quicker, version: "1", description: d, steps: [{{payload: isr}}]}}
rules:
  - {{pipeline: slow, beside: true, cameras: [LATISS]}}
  - {{pipeline: quick}}
  - {{pipeline: quicker, image_types: [bias]}}
"""
    )
    return load_book([tmp_path])


def test_a_camera_whose_rules_ask_for_a_pool_gets_a_worker_for_it(tmp_path):
    book = book_with(tmp_path, "spectra")
    assert own_pools(book, camera="LATISS") == {"spectra": 1}
    assert own_pools(book, camera="LSSTCam") == {}
    assert own_pools(packaged_book(), camera="LSSTCam") == {"wavefront": 1}
    assert own_pools(packaged_book(), camera="LATISS") == {}


def test_a_pool_without_workers_is_left_to_all():
    assert other_pools("science,wavefront,build", {"wavefront": 2}) == ["science", "build"]
    assert other_pools("science, build", {"wavefront": 0}) == ["science", "build", "wavefront"]


def test_a_worker_warms_each_payload_of_its_pools_once(tmp_path):
    book = book_with(tmp_path, "spectra")
    assert list(warm_pipelines(book, camera="LATISS", pools=["science"])) == ["quick"]
    assert list(warm_pipelines(book, camera="LATISS", pools=["spectra"])) == ["slow"]
    assert list(warm_pipelines(book, camera="LSSTCam", pools=["spectra"])) == []
