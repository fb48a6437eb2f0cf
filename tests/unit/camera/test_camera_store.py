"""Cameras as data: the packaged ones tell the truth, and a site's own are checked."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from rapid.camera.models import Camera, Purpose
from rapid.camera.store import PACKAGED, list_cameras, load_camera, portable_definition
from rapid.errors import ConfigurationError, NotFoundError

EXAMPLE = PACKAGED / "example" / "SmallCam.yaml"


@pytest.fixture
def lsstcam() -> Camera:
    return load_camera("LSSTCam")


def test_lsstcam_has_its_205_detectors_by_purpose_and_kind(lsstcam):
    kinds = {}
    for detector in lsstcam.detectors:
        kinds[detector.purpose, detector.physical_type] = kinds.get((detector.purpose, detector.physical_type), 0) + 1
    assert kinds == {
        (Purpose.SCIENCE, "E2V"): 117,
        (Purpose.SCIENCE, "ITL"): 72,
        (Purpose.GUIDER, "ITL_G"): 8,
        (Purpose.WAVEFRONT, "ITL_WF"): 8,
    }
    assert lsstcam.science_ids == frozenset(range(189))


@pytest.mark.parametrize(
    ("name", "number", "x_mm", "y_mm"),
    [("R22_S11", 94, 0.0, 0.0), ("R34_S22", 161, 127 * 2 + 42.25, 127 + 42.25), ("R12_S00", 45, -42.25, -169.25)],
    ids=["the centre", "the corner of an upper right raft", "below the centre"],
)
def test_e2v_detectors_sit_on_the_grid_of_rafts(lsstcam, name, number, x_mm, y_mm):
    detector = lsstcam.by_name[name]
    assert (detector.id, detector.physical_type) == (number, "E2V")
    assert (detector.x_mm, detector.y_mm) == pytest.approx((x_mm, y_mm), abs=0.011)


@pytest.mark.parametrize(
    ("number", "first_flips", "last_flips", "size"),
    [
        (94, (True, True), (False, False), (4096, 4004)),
        (0, (True, True), (True, False), (4072, 4000)),
        (189, (True, True), (True, False), (4072, 4000)),
    ],
    ids=["E2V turns half round", "ITL mirrors", "ITL guider mirrors"],
)
def test_amps_of_the_upper_and_lower_row_are_flipped_as_their_vendor_reads_them(
    lsstcam, number, first_flips, last_flips, size
):
    detector = lsstcam.by_id[number]
    assert (detector.width, detector.height) == size
    names = [amp.name for amp in detector.amps]
    assert names == [f"C1{i}" for i in range(8)] + [f"C0{i}" for i in range(7, -1, -1)]
    assert {(a.flip_x, a.flip_y) for a in detector.amps[:8]} == {first_flips}
    assert {(a.flip_x, a.flip_y) for a in detector.amps[8:]} == {last_flips}
    assert (detector.amp_by_name["C00"].trimmed.x0, detector.amp_by_name["C00"].trimmed.y0) == (0, 0)


def test_a_wavefront_half_has_eight_amps_from_right_to_left_each_with_its_own_hdu(lsstcam):
    half = lsstcam.by_id[191]
    assert (half.width, half.height, half.n_quarter) == (4072, 2000, lsstcam.by_name["R00_SW0"].n_quarter)
    assert [amp.hdu for amp in half.amps] == list(range(1, 9))
    assert [amp.trimmed.x0 for amp in half.amps] == [509 * i for i in range(7, -1, -1)]
    assert (lsstcam.by_name["R00_SW0"].z_mm, lsstcam.by_name["R00_SW1"].z_mm) == (-1.5, 1.5)


@pytest.mark.parametrize("name", list_cameras())
def test_amps_tile_every_detector_exactly_once_and_fit_their_raw_segment(name):
    for detector in load_camera(name).detectors:
        covered = np.zeros((detector.height // 25 + 1, detector.width), dtype=np.int32)  # rows thinned: memory
        for amp in detector.amps:
            assert amp.data.x1 <= amp.raw_width
            assert amp.data.y1 <= amp.raw_height
            assert (amp.trimmed.width, amp.trimmed.height) == (amp.data.width, amp.data.height)
            rows = slice(-(-amp.trimmed.y0 // 25), -(-amp.trimmed.y1 // 25))
            covered[rows, amp.trimmed.x0 : amp.trimmed.x1] += 1
        rows = -(-detector.height // 25)
        assert (covered[:rows] == 1).all(), detector.name


def test_saturation_is_adu_above_bias_and_within_the_converters_range(lsstcam):
    levels = [amp.saturation for d in lsstcam.detectors for amp in d.amps]
    assert min(levels) > 10_000  # one amp of 3216 is known to fill early
    assert max(levels) < 2**18
    e2v = np.median([amp.saturation * amp.gain for d in lsstcam.detectors if d.vendor == "E2V" for amp in d.amps])
    assert e2v == pytest.approx(140_000, rel=0.02)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("lsstcam", "LSSTCam"), ("LSST_CAMERA", "LSSTCam"), ("comcam", "LSSTComCam"), ("LSST_ComCam", "LSSTComCam"),
        ("LSSTComCamSim", "LSSTComCam"), ("LSST_ATISS", "LATISS"), ("ts8", "LSST-TS8"), ("testcam205", "TestCam205"),
    ],
)  # fmt: skip
def test_a_camera_is_found_by_any_of_its_spellings(spelling, name):
    assert load_camera(spelling) is load_camera(name)
    assert load_camera(name).name == name


def test_the_small_lsstcam_is_the_same_camera_with_fewer_pixels(lsstcam):
    small = load_camera("TestCam205")
    assert [d.name for d in small.detectors] == [d.name for d in lsstcam.detectors]
    assert [(d.x_mm, d.y_mm, d.n_quarter) for d in small.detectors] == [
        (d.x_mm, d.y_mm, d.n_quarter) for d in lsstcam.detectors
    ]
    ratio = sum(a.raw_width * a.raw_height for a in lsstcam.by_id[94].amps) / sum(
        a.raw_width * a.raw_height for a in small.by_id[94].amps
    )
    assert ratio > 100
    big, little = lsstcam.by_id[94], small.by_id[94]
    assert little.focal_plane_size_mm == pytest.approx(big.focal_plane_size_mm, rel=0.02)
    assert little.amps[0].serial_overscan.width >= 12


def test_an_unknown_camera_names_the_known_ones():
    with pytest.raises(NotFoundError, match=r"no camera named Hubble.*LSSTCam"):
        load_camera("Hubble")


def test_the_example_is_a_complete_camera_that_a_site_can_copy(monkeypatch, tmp_path):
    (tmp_path / "SmallCam.yaml").write_text(EXAMPLE.read_text())
    monkeypatch.setenv("RAPID_CAMERA_PATH", f"{tmp_path}{os.pathsep}/nowhere")
    assert "SmallCam" in list_cameras()
    camera = load_camera("small_cam")
    assert [d.name for d in camera.detectors] == ["R00_S00", "R00_S01"]
    assert camera.by_id[1].amp_by_name["C10"].gain == 1.47
    assert camera.by_id[1].amp_by_name["C11"].gain == 1.5
    assert camera.by_id[2].focal_plane_size_mm == pytest.approx((20.0, 10.0))


def test_a_camera_can_be_part_of_another(tmp_path):
    path = tmp_path / "Centre.yaml"
    path.write_text("{base: LSSTCam, only: [R22, R33_S11, 150], scale_down: 8, code: XX, witness_detector: 94}")
    camera = load_camera(str(path))
    assert [d.id for d in camera.detectors] == [*range(90, 99), 148, 150]
    assert camera.by_id[94].amps[0].data.width == 64


def _write(tmp_path: Path, changes: dict, *, drop: str = "") -> str:
    document = {**yaml.safe_load(EXAMPLE.read_text()), **changes}
    document.pop(drop, None)
    path = tmp_path / "Broken.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "drop", "message"),
    [
        ({"code": "toolong"}, "", "Broken.yaml: code"),
        ({"witness_detector": 77}, "", "witness_detector 77 is not among the detectors"),
        ({"plate_scale_arcsec_per_mm": -1}, "", "plate_scale_arcsec_per_mm"),
        ({"colour": "red"}, "", "Broken.yaml: colour"),
        ({}, "f_ratio", "Broken.yaml: f_ratio"),
        ({"detectors": []}, "", "Broken.yaml: detectors"),
        ({"detectors": "none.csv"}, "", "detectors: table .*none.csv cannot be read"),
        ({"ccd_types": {}}, "", "Broken.yaml: ccd_types"),
        ({"base": "Hubble"}, "", "no camera named Hubble"),
    ],
    ids=[
        "a code of seven letters", "a witness that is not there", "a negative scale", "an unknown field",
        "a missing field", "no detectors", "a missing table", "no kind of CCD", "an unknown base",
    ],
)  # fmt: skip
def test_a_wrong_definition_names_the_field(tmp_path, changes, drop, message):
    with pytest.raises((ConfigurationError, NotFoundError), match=message):
        load_camera(_write(tmp_path, changes, drop=drop))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "is a mapping"),
        ("name: [", "not YAML"),
        ("{base: LSSTCam, only: R99}", "keeps no detector"),
        ("{base: LSSTCam, scale_down: 0}", "positive whole number"),
    ],
)
def test_a_file_that_is_no_definition_says_so(tmp_path, text, message):
    path = tmp_path / "Bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_camera(str(path))


def test_cameras_based_on_each_other_in_a_circle_end_in_an_error(tmp_path, monkeypatch):
    (tmp_path / "Hen.yaml").write_text("base: Egg")
    (tmp_path / "Egg.yaml").write_text("base: Hen")
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="circle"):
        load_camera("Hen")


def test_a_broken_neighbour_does_not_hide_other_cameras(tmp_path, monkeypatch):
    (tmp_path / "Broken.yaml").write_text("name: [")
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(tmp_path))
    assert load_camera("LSST_ATISS").name == "LATISS"


def test_a_stand_that_tested_both_vendors_gives_the_detector_as_either():
    stand = load_camera("LSST-TS8")
    assert stand.detector(4).width == 4096
    assert stand.detector(4, physical_type="ITL").width == 4072
    assert stand.detector(99) is None


def test_a_portable_definition_needs_nothing_beside_it(tmp_path, monkeypatch):
    site, other = tmp_path / "site", tmp_path / "other"
    for folder in (site, other):
        folder.mkdir()
    (site / "MyCam.yaml").write_text("name: MyCam\nbase: TestCam205\nonly: R22\ncode: MY\n")
    (site / "MyOwn.yaml").write_text("name: MyOwn\nbase: MyCam\nonly: R22_S11\ncode: MO\n")
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(site))
    assert portable_definition("LSSTCam") == ""
    for name in ("MyCam", "MyOwn"):
        (other / f"{name}.yaml").write_text(portable_definition(name))
    expected = load_camera("MyOwn")
    (other / "MyCam.yaml").unlink()
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(other))
    assert load_camera("MyOwn") == expected
    assert [detector.name for detector in expected.detectors] == ["R22_S11"]


def test_a_portable_definition_holds_the_tables_that_were_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RAPID_CAMERA_PATH", str(EXAMPLE.parent))
    (tmp_path / EXAMPLE.name).write_text(portable_definition("SmallCam"))
    assert load_camera(str(tmp_path / EXAMPLE.name)) == load_camera(str(EXAMPLE))
