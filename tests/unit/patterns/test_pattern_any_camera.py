"""Patterns come from places: cameras nobody has thought of get sensible ones."""

import pytest
import yaml

from rapid.camera.models import Camera
from rapid.camera.store import list_cameras, load_camera
from rapid.patterns import PatternError, describe_patterns, list_patterns, parse_pattern

ITL = """
  {pixel_mm: 0.01, amp: {data_width: 100, data_height: 400, serial_prescan: 3, serial_overscan: 12,
   parallel_overscan: 12}, rows: [{amps: [A, B, C, D], row: 0, columns: ascending, flip_x: false, flip_y: false}],
   electronics: {gain: 1.0, read_noise: 5.0, saturation_e: 100000}}
"""


@pytest.fixture
def make_camera(tmp_path):
    """Return a maker of cameras of 4 mm square CCDs at given places [mm]."""

    def make(places: dict[str, tuple[float, float]], name: str = "Odd", **facts) -> Camera:
        rows = [
            {"id": i, "name": name, "physical_type": "CCD", "vendor": "ACME", "x_mm": x, "y_mm": y}
            for i, (name, (x, y)) in enumerate(places.items())
        ]
        document = {
            "name": name, "code": "XX", "plate_scale_arcsec_per_mm": 20.0, "f_ratio": 2.0, "witness_detector": 0,
            "ccd_types": {"CCD": yaml.safe_load(ITL)}, "detectors": rows, **facts,
        }  # fmt: skip
        path = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump(document))
        return load_camera(str(path))

    return make


def grid(n_rows, n_columns, pitch=4.2, shift=0.0):
    return {
        f"R{row}{column}_S0": (column * pitch + (row % 2) * shift, row * pitch)
        for row in range(n_rows)
        for column in range(n_columns)
    }


def selected(text, camera, phase=0):
    return parse_pattern(text).detectors(camera, phase)


def test_the_commissioning_camera_has_the_patterns_of_one_raft():
    camera = load_camera("LSSTComCam")
    assert selected("ccd_checkerboard", camera) == {1, 3, 5, 7}
    assert selected("ccd_checkerboard", camera, 1) == {0, 2, 4, 6, 8}
    assert selected("raft_checkerboard", camera) == set(range(9))
    assert parse_pattern("raft_checkerboard").phases(camera) == 1
    assert selected("5-on-a-die", camera) == {0, 2, 4, 6, 8}
    assert selected("diagonal", camera) == {0, 4, 8}
    assert selected("cross", camera) == {1, 3, 4, 5, 7}
    assert selected("minimal", camera) == set(range(9))
    assert selected("rings", camera) == set(range(9)) - {4}
    assert selected("rings@1", camera) == {4}
    assert selected("itl", camera) == set(range(9))
    assert selected("unvignetted", camera) == set(range(9))


@pytest.mark.parametrize("text", ["all", "ccd_checkerboard", "raft_checkerboard", "minimal", "ultra-minimal",
                                  "5-on-a-die", "spiral", "rings", "crosses", "cross", "itl"])  # fmt: skip
def test_every_shape_of_a_camera_of_one_ccd_is_that_ccd(text):
    camera = load_camera("LATISS")
    assert parse_pattern(text).cycle(camera) == (frozenset({0}),)


@pytest.mark.parametrize("camera", list_cameras())
def test_phases_are_never_empty_and_stay_within_the_camera(camera):
    camera = load_camera(camera)
    for known in list_patterns(camera):
        if not known.needs_arguments:
            for ids in parse_pattern(known.name).cycle(camera):
                assert ids, known.name
                assert ids <= camera.by_id.keys()


@pytest.mark.parametrize(("n_rows", "n_columns"), [(1, 1), (1, 7), (2, 2), (3, 5), (4, 4), (6, 3), (7, 7)])
@pytest.mark.parametrize("shift", [0.0, 2.1], ids=["in columns", "as bricks"])
def test_neighbours_in_a_row_are_in_different_phases_of_a_checkerboard(make_camera, n_rows, n_columns, shift):
    camera = make_camera(grid(n_rows, n_columns, shift=shift))
    pattern = parse_pattern("ccd_checkerboard")
    assert pattern.phases(camera) == (1 if n_rows * n_columns == 1 else 2)
    first = pattern.detectors(camera)
    for row in range(n_rows):
        for column in range(n_columns - 1):
            number = row * n_columns + column
            assert (number in first) != (number + 1 in first)


def test_middles_of_even_grids_are_two_wide(make_camera):
    camera = make_camera(grid(4, 4))
    assert selected("horizontal", camera) == set(range(4, 12))
    assert selected("vertical", camera) == {i for i in range(16) if i % 4 in {1, 2}}
    assert selected("diagonal", camera) == {0, 5, 10, 15}
    assert selected("diagonal2", camera) == {3, 6, 9, 12}
    assert selected("cross(4)", camera) == set(range(16))
    # Sixteen rafts of one: the die is of rafts, the middle of an even grid is four of them.
    assert selected("5-on-a-die", camera) == {5, 6, 9, 10, 0, 3, 12, 15}


def test_the_origin_of_the_focal_plane_does_not_count(make_camera):
    here = make_camera(grid(5, 5))
    there = make_camera({name: (x - 1234.5, y + 777.7) for name, (x, y) in grid(5, 5).items()})
    for known in list_patterns(here):
        if not known.needs_arguments:
            assert parse_pattern(known.name).cycle(here) == parse_pattern(known.name).cycle(there)


def test_small_errors_of_placement_do_not_count(make_camera):
    exact = make_camera(grid(7, 7))
    rough = make_camera(
        {name: (x + 0.3 * ((i * 7) % 5 - 2) / 2, y + 0.3 * ((i * 3) % 5 - 2) / 2)
         for i, (name, (x, y)) in enumerate(grid(7, 7).items())}
    )  # fmt: skip
    for known in list_patterns(exact):
        if not known.needs_arguments:
            for a, b in zip(
                parse_pattern(known.name).cycle(exact), parse_pattern(known.name).cycle(rough), strict=True
            ):
                assert a == b, known.name


def test_vendors_rafts_and_slots_are_those_of_the_camera(make_camera):
    camera = make_camera({"A_1": (0, 0), "A_2": (4.2, 0), "B_1": (8.4, 0), "all_1": (12.6, 0)})
    assert selected("acme", camera) == {0, 1, 2, 3}
    assert selected("vendor(Acme)", camera) == {0, 1, 2, 3}
    assert selected("a", camera) == {0, 1}
    assert selected("slot(1)", camera) == {0, 2, 3}
    assert selected("B_1", camera) == {2}
    # A raft named like a pattern is reached by raft(); the name alone is the pattern.
    assert selected("all", camera) == {0, 1, 2, 3}
    assert selected("raft(all)", camera) == {3}
    assert selected("all_1", camera) == {3}


def test_a_camera_without_science_detectors_has_all_of_them(tmp_path):
    (tmp_path / "Corner.yaml").write_text("name: Corner\nbase: LSSTCam\ncode: XX\nonly: [R00]\n")
    camera = load_camera(str(tmp_path / "Corner.yaml"))
    assert selected("all", camera) == {189, 190, 191, 192}
    assert selected("guiders", camera) == {189, 190}
    assert selected("~guiders", camera) == {191, 192}
    with pytest.raises(PatternError, match="e2v selects no detector of Corner"):
        selected("e2v", camera)


def test_part_of_a_camera_keeps_rows_and_columns(tmp_path):
    (tmp_path / "Few.yaml").write_text("name: Few\nbase: LSSTCam\ncode: XX\nonly: [R11, R13, R22, R31, R33]\n")
    camera = load_camera(str(tmp_path / "Few.yaml"))
    whole = load_camera("LSSTCam")
    for text in ("ultra-minimal", "5-on-a-die"):
        assert selected(text, camera) == selected(text, whole)
    board = {phase: selected("ccd_checkerboard", whole, phase) & camera.by_id.keys() for phase in (0, 1)}
    assert set(parse_pattern("ccd_checkerboard").cycle(camera)) == {frozenset(ids) for ids in board.values()}


def test_the_field_radius_is_a_fact_of_the_camera(make_camera):
    bare = make_camera(grid(3, 3))
    with pytest.raises(PatternError, match="Odd does not say where vignetting begins"):
        selected("unvignetted", bare)
    # 4.2 mm of pitch at 20 arcsec/mm; corners of the lower left CCD reach 2 * sqrt(2) mm = 56.6 arcsec.
    known = make_camera(grid(3, 3), unvignetted_radius_deg=0.0158)
    assert selected("unvignetted", known) == {0}
    with pytest.raises(PatternError):
        selected("unvignetted(0.0157)", known)


def test_the_list_of_a_camera_says_what_it_does_not_have():
    camera = load_camera("LSSTComCam")
    rows = {row["name"]: row for row in describe_patterns(camera, {"mine": "0-3", "broken": "0-"})}
    assert rows["ccd_checkerboard"]["sizes"] == [4, 5]
    assert rows["ccd_checkerboard"]["phases"] == 2
    assert rows["e2v"]["sizes"] is None
    assert rows["raft"]["usage"] == "raft(RAFT,...)"
    assert rows["mine"] | {"sizes": [4], "saved": True, "expression": "0-3"} == rows["mine"]
    assert rows["broken"]["sizes"] is None
    assert {known.name for known in list_patterns()} - {known.name for known in list_patterns(camera)} == {
        "e2v", "guiders", "wavefront"
    }  # fmt: skip
