"""The grid, the sky map, the folder of templates, and what is told ahead of an exposure."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from sky_scene import CAMERA, CENTRE, DETECTOR, Exposure, boresight_of, build, contribution_of, make_stars, take

from payloads.difference.align import align
from payloads.difference.payload import DifferenceConfig, SubtractTemplate
from payloads.difference.sky_map import sky_map_of, sky_map_of_pointing, tiles_below
from payloads.difference.store import TemplateStore, make_store
from payloads.difference.template_file import read_provenance
from payloads.difference.tiles import N_ZONES, TILE_DEG, Tile, geometry_of, tile_of, tiles_around, tiles_of_zone
from payloads.quality.catalogue import separation_deg
from rapid.camera.store import load_camera
from rapid.errors import ConfigurationError, PayloadError, StoreError

pytestmark = pytest.mark.timeout(900)
"""Compiling the loops anew takes a minute of a core, and more beside other work."""


@pytest.fixture(scope="module")
def frames():
    sky = make_stars(n=160)
    return [take(sky, Exposure(1 + i, dither_arcsec=(5.0 * i, -3.0 * i), transparency=1.0 - 0.1 * i)) for i in range(3)]


@pytest.fixture(scope="module")
def folder(frames, tmp_path_factory):
    found = tmp_path_factory.mktemp("templates") / "store"
    build(found, frames)
    return found


def test_every_place_lies_well_inside_the_image_of_its_tile() -> None:
    rng = np.random.default_rng(1)
    places = [(float(rng.uniform(0, 360)), float(np.degrees(np.arcsin(rng.uniform(-1, 1))))) for _ in range(500)]
    places += [(0.0, 90.0), (359.99, -90.0), (0.0, 0.0), (-0.001, 0.25), (12.0, 89.9), (200.0, -89.76)]
    for ra, dec in places:
        tile = tile_of(ra, dec)
        geometry = geometry_of(tile, 0.4)
        x, y = geometry.to_px(ra, dec)
        assert 7 <= x[0] <= geometry.width - 8, (ra, dec)
        assert 7 <= y[0] <= geometry.height - 8, (ra, dec)
        back = geometry.to_sky(x, y)
        assert separation_deg(ra, dec, *back)[0] < 1e-9


def test_zones_cover_the_sky_and_tiles_are_about_square() -> None:
    assert N_ZONES * TILE_DEG == 180.0
    for zone in range(20, N_ZONES - 20, 37):
        width = 360.0 / tiles_of_zone(zone) * np.cos(np.radians((zone + 0.5) * TILE_DEG - 90.0))
        assert 0.9 * TILE_DEG < width <= TILE_DEG


def test_the_world_coordinates_in_a_file_are_those_of_its_tile(folder) -> None:
    record = TemplateStore(folder).records()[0]
    geometry = geometry_of(record.tile, 0.4)
    with fits.open(record.path) as hdus:
        world = WCS(hdus["IMAGE"].header)
        assert hdus["IMAGE"].data.shape == (geometry.height, geometry.width)
    x, y = np.array([0.0, 100.5, 2000.0]), np.array([3.0, 1500.25, 77.0])
    ra, dec = geometry.to_sky(x, y)
    np.testing.assert_allclose(world.all_pix2world(x, y, 0), [ra, dec], atol=1e-9)


@pytest.mark.parametrize("name", ["LSSTCam", "LATISS"])
def test_pixels_go_to_the_sky_and_back(name) -> None:
    camera = load_camera(name)
    rng = np.random.default_rng(2)
    for detector in camera.detectors[:: max(1, len(camera.detectors) // 5)]:
        pointing = boresight_of(Exposure(1, angle_deg=33.0))
        sky_map = sky_map_of_pointing(camera, detector, pointing)
        x, y = rng.uniform(0, detector.width, 20), rng.uniform(0, detector.height, 20)
        ra, dec = sky_map.to_sky(x, y)
        np.testing.assert_allclose(sky_map.to_px(ra, dec), (x, y), atol=1e-6)
        centre = {"ra_deg": pointing.ra_deg, "dec_deg": pointing.dec_deg}
        table = {"x": x.tolist(), "y": y.tolist(), "ra_deg": ra.tolist(), "dec_deg": dec.tolist()}
        fitted = sky_map_of(camera, detector, **centre, stars=table)
        corner = fitted.to_sky([0.0, detector.width], [0.0, detector.height])
        assert separation_deg(*(c[0] for c in corner), *(c[:1] for c in sky_map.to_sky([0.0], [0.0])))[0] * 3600 < 1e-3


def test_stars_that_do_not_tell_where_a_detector_looks_are_refused() -> None:
    told = {"ra_deg": 10.0, "dec_deg": -20.0}
    with pytest.raises(PayloadError, match="no pointing"):
        sky_map_of(CAMERA, DETECTOR, ra_deg=None, dec_deg=1.0, stars={})
    with pytest.raises(PayloadError, match="only 0 stars"):
        sky_map_of(CAMERA, DETECTOR, **told, stars=None)
    line = {"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 4.0], "ra_deg": [10.0] * 4, "dec_deg": [-20.0] * 4}
    with pytest.raises(PayloadError, match="on a line"):
        sky_map_of(CAMERA, DETECTOR, **told, stars=line)
    rng = np.random.default_rng(3)
    noise = {"x": rng.uniform(0, 900, 9).tolist(), "y": rng.uniform(0, 900, 9).tolist()}
    noise |= {"ra_deg": (10 + rng.normal(0, 0.01, 9)).tolist(), "dec_deg": (-20 + rng.normal(0, 0.01, 9)).tolist()}
    with pytest.raises(PayloadError, match="differ by"):
        sky_map_of(CAMERA, DETECTOR, **told, stars=noise)


def test_a_ring_of_tiles_has_all_that_a_turning_detector_can_lie_on() -> None:
    ring = set(tiles_around(*CENTRE, 1.0, 1.3))
    for angle in range(0, 360, 15):
        for away in (1.02, 1.28):
            dec = CENTRE[1] + away * np.cos(np.radians(angle))
            ra = CENTRE[0] + away * np.sin(np.radians(angle)) / np.cos(np.radians(dec))
            assert tile_of(ra, dec) in ring
    assert tile_of(*CENTRE) not in ring
    assert tiles_around(*CENTRE, 0.0, 0.5)[0] == tile_of(*CENTRE)


def test_the_same_exposures_make_the_same_bytes_and_no_new_version(folder, frames, tmp_path) -> None:
    again = build(folder, frames)
    assert [(report.version, report.is_new) for report in again] == [(1, False)] * len(again)
    build(tmp_path / "other", frames[::-1])
    for record in TemplateStore(folder).records():
        other = tmp_path / "other" / record.band / record.tile.name / record.path.name
        assert other.read_bytes() == record.path.read_bytes()


def test_a_newer_template_replaces_the_older_which_stays_for_one_more(frames, tmp_path) -> None:
    for n in (1, 2, 3):
        reports = build(tmp_path / "store", frames[:n], min_exposures=1)
        assert {report.version for report in reports if report.reason == ""} == {n}
    record = TemplateStore(tmp_path / "store").records()[0]
    assert sorted(path.name for path in record.path.parent.iterdir()) == ["v0002.fits", "v0003.fits"]
    facts = read_provenance(record.path)
    assert facts["exposures"] == [frame.info.exposure_id for frame in frames]
    assert [one["scale_from"] for one in facts["inputs"]] == ["exposure time", "stars", "stars"]
    scales = [one["scale"] * 30.0 for one in facts["inputs"]]
    np.testing.assert_allclose(scales, [1.0, 1 / 0.9, 1 / 0.8], rtol=0.02)


def test_too_few_exposures_make_no_template(frames, tmp_path) -> None:
    reports = build(tmp_path / "store", frames[:2])
    assert {report.reason for report in reports} == {"only 2 of 3 exposures"}
    assert TemplateStore(tmp_path / "store").records() == []


def test_an_image_that_is_not_where_it_says_is_left_out(frames) -> None:
    elsewhere = take(make_stars(n=160, seed=77), Exposure(9))
    aligned, left_out = align([contribution_of(frame) for frame in (*frames, elsewhere)])
    assert len(aligned) == 3
    assert [one.exposure_id for one in left_out] == [2026112000009]


def test_what_is_wrong_with_a_folder_is_said(tmp_path, folder) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        TemplateStore(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="other things"):
        make_store(tmp_path, scale_arcsec=0.4)
    with pytest.raises(ConfigurationError, match=r"0\.4 arcsec"):
        make_store(folder, scale_arcsec=0.5)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/templates.yaml").write_text("scale_arcsec: big")
    with pytest.raises(ConfigurationError, match="scale_arcsec"):
        TemplateStore(tmp_path / "bad")


def test_a_damaged_template_is_told_and_stops_no_quick_look(frames, tmp_path) -> None:
    build(tmp_path / "store", frames)
    for record in TemplateStore(tmp_path / "store").records():
        record.path.write_bytes(record.path.read_bytes()[:9000])
    with pytest.raises(StoreError, match="cannot be read"):
        TemplateStore(tmp_path / "store").get(tile_of(*CENTRE), "r")
    frame = frames[0]
    SubtractTemplate(DifferenceConfig(templates=tmp_path / "store")).run(frame)
    assert "cannot be read" in frame.metrics["difference_note"]


@pytest.fixture
def reads(monkeypatch):
    """Return the files that templates are read from, as they are."""
    from payloads.difference import store

    seen = []
    real = store.read_template

    def noted(path):
        seen.append(path)
        return real(path)

    monkeypatch.setattr(store, "read_template", noted)
    return seen


def test_what_is_announced_is_read_before_the_exposure_and_let_go_after(folder, frames, reads) -> None:
    payload = SubtractTemplate(DifferenceConfig(templates=folder))
    pointing = boresight_of(Exposure(1))
    sky, bands = (pointing.ra_deg, pointing.dec_deg), frozenset({"r", "z"})
    payload.preload(sky, bands, camera=CAMERA, detector=DETECTOR, angle_deg=pointing.angle_deg)
    below = tiles_below(sky_map_of_pointing(CAMERA, DETECTOR, pointing))
    n_read = len(reads)
    assert n_read >= len(below) >= 2
    payload.run(frames[1])
    assert frames[1].metrics["template_fraction"] > 0.5
    assert len(reads) == n_read  # the exposure found all in memory
    other = (sky[0] + 0.001, sky[1])
    payload.preload(other, bands, camera=CAMERA, detector=DETECTOR, angle_deg=pointing.angle_deg)
    payload.let_go(sky, bands)
    assert payload.open_store().n_bytes > 0  # the other visit wants them
    payload.let_go(other, bands)
    payload.let_go(other, bands)
    assert payload.open_store().n_bytes == 0
    payload.run(frames[1])
    assert len(reads) > n_read


@pytest.mark.parametrize("told", [{}, {"camera": CAMERA, "detector": DETECTOR}], ids=["the field", "no angle"])
def test_without_an_angle_or_a_detector_what_may_be_needed_is_read(folder, reads, told) -> None:
    payload = SubtractTemplate(DifferenceConfig(templates=folder))
    payload.preload(CENTRE, frozenset({"r"}), **told)
    assert {path.parent.name for path in reads} == {record.tile.name for record in TemplateStore(folder).records()}


def test_memory_for_templates_is_bounded(folder, frames, reads) -> None:
    payload = SubtractTemplate(DifferenceConfig(templates=folder, cache_mb=30.0))
    payload.preload(CENTRE, frozenset({"r"}))
    store = payload.open_store()
    assert len(reads) == 1  # 26 MB each: there is room for no second
    assert len(store.held) == 1
    payload.run(frames[2])
    assert frames[2].metrics["template_n_tiles"] >= 2
    assert len(store.held) == 1


def test_a_newer_version_is_read_and_one_that_was_removed_forgotten(frames, tmp_path, reads) -> None:
    build(tmp_path / "store", frames[:2], min_exposures=1)
    store, tile = TemplateStore(tmp_path / "store"), tile_of(*CENTRE)
    assert store.get(tile, "r").version == store.get(tile, "r").version == 1
    assert len(reads) == 1
    build(tmp_path / "store", frames, min_exposures=1)
    assert store.get(tile, "r").version == 2
    assert store.get(Tile(3, 1), "r") is None
    for path in (tmp_path / "store/r" / tile.name).iterdir():
        path.unlink()
    assert store.get(tile, "r") is None
