"""Every named pattern of today has exactly today's detectors, under every spelling in use."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from rapid.camera.store import load_camera
from rapid.patterns import parse_pattern

CAMERA = load_camera("LSSTCam")
SETS = json.loads((Path(__file__).parent / "data/lsstcam_sets.json").read_text())


def numbers(ranges: str) -> set[int]:
    """Read "0-3 7" by other means than those under test."""
    found = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def selected(text, phase=0, camera=CAMERA):
    return parse_pattern(text).detectors(camera, phase)


@pytest.mark.parametrize("name", SETS)
def test_named_pattern_is_that_of_today(name):
    assert selected(name) == numbers(SETS[name])


@pytest.mark.parametrize("name", [name for name in SETS if "[" not in name])
@pytest.mark.parametrize(
    "spell",
    [str.upper, str.title, lambda n: n.replace("-", "_"), lambda n: n.replace("_", "-"),
     lambda n: n.replace("_", " ").replace("-", " "), lambda n: n.replace("_", "").replace("-", "")],
    ids=["capitals", "title", "underscores", "dashes", "blanks", "nothing between"],
)  # fmt: skip
def test_spelling_of_a_name_does_not_count(name, spell):
    assert selected(spell(name)) == numbers(SETS[name])


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("ALL", "all"), ("RAFT_CHECKERBOARD", "raft_checkerboard[0]"), ("CCD_CHECKERBOARD", "ccd_checkerboard[0]"),
        ("5_ON_A_DIE", "5-on-a-die"), ("MINIMAL", "minimal"), ("ULTRA_MINIMAL", "ultra-minimal"),
        ("cwfs", "wavefront"), ("fullFocalPlaneGuiders", "full_focal_plane_guiders"),
        ("ccd_checkerboard(phase1)", "ccd_checkerboard[1]"), ("raft_checkerboard (Phase0)", "raft_checkerboard[0]"),
        ("raft_checkerboard@1", "raft_checkerboard[1]"), ("R22 | R33", "usdf_testing"), ("science", "all"),
        ("E2V", "e2v"), ("ITL", "itl"), ("vendor(Itl)", "itl"), ("diagonals", "ultra-minimal"),
        ("ultra-minimal | cross", "minimal"),
    ],
)  # fmt: skip
def test_other_systems_spelling(spelling, name):
    assert selected(spelling) == numbers(SETS[name])


def test_rubintvs_all_unvignetted_is_within_the_field():
    chosen = selected("ALL_UNVIGNETTED")
    assert chosen == selected("unvignetted(1.75)")
    assert len(chosen) == 145
    assert chosen < selected("all")
    assert {0, 20, 168, 188}.isdisjoint(chosen)  # the outermost corners


@pytest.mark.parametrize("name", ["raft_checkerboard", "ccd_checkerboard"])
def test_phases_of_a_checkerboard_make_up_the_whole(name):
    pattern = parse_pattern(name)
    assert pattern.phases(CAMERA) == 2
    assert pattern.detectors(CAMERA, 0) == numbers(SETS[f"{name}[0]"])
    assert pattern.detectors(CAMERA, 1) == numbers(SETS[f"{name}[1]"])
    assert pattern.detectors(CAMERA, 7) == pattern.detectors(CAMERA, 1)


@pytest.mark.parametrize(
    ("steps", "n"),
    [
        ("wavefront | guiders", 16), ("ccd_checkerboard[1] | wavefront", 101), ("~e2v", 72), ("~e2v | wavefront", 80),
        ("raft_checkerboard[1] | wavefront", 89), ("raft_checkerboard[1] | wavefront | guiders", 97),
        ("ccd_checkerboard - wavefront", 96), ("everything", 205),
    ],
)  # fmt: skip
def test_sequences_of_switches_of_today_as_expressions(steps, n):
    assert len(selected(steps)) == n


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("R22", range(90, 99)), ("r22", range(90, 99)), ("raft(R22)", range(90, 99)), ("R00", range(189, 193)),
        ("R22_S11", [94]), ("r22_s11", [94]), ("94", [94]), ("0-9", range(10)), ("0..9", range(10)),
        ("0 .. 9", range(10)), ("1,2,3", [1, 2, 3]), ("[1, 2, 3]", [1, 2, 3]), ("5-7, 94,R22_S00", [5, 6, 7, 94, 90]),
        ("raft(R22, r33)", [*range(90, 99), *range(144, 153)]), ("rafts(R22)", range(90, 99)),
        ("all - R00", range(189)), ("all - 1..188", [0]), ("all-1-188", [0]), ("all - 1,2,3 - 4-188", [0]),
        ("slot(SG0)", [189, 193, 197, 201]),
        ("190", [190]), ("e2v & R10, R11", range(36, 45)), ("ITL & R20", range(72, 81)),
    ],
)  # fmt: skip
def test_rafts_detectors_numbers_ranges_and_lists(text, ids):
    assert selected(text) == set(ids)


def test_the_example_of_the_control_room():
    e2v, r22 = numbers(SETS["e2v"]), set(range(90, 99))
    for phase in (0, 1):
        board = numbers(SETS[f"ccd_checkerboard[{phase}]"])
        assert selected("ccd_checkerboard & e2v | R22", phase) == board & e2v | r22


def test_a_scaled_down_camera_has_the_same_patterns():
    small = load_camera("TestCam205")
    for name in [*SETS, "rings", "spiral(3,2)", "crosses", "unvignetted(1)"]:
        assert selected(name, camera=small) == selected(name)


def test_new_shapes_are_symmetric_and_their_phases_complementary():
    by_place = {(round(d.x_mm / 42.25), round(d.y_mm / 42.25)): d.id for d in CAMERA.detectors if d.id < 189}
    for text in ("rings", "rings(1)", "rings(4)", "crosses", "spiral(2)", "cross", "minimal", "unvignetted(1.2)"):
        for ids in parse_pattern(text).cycle(CAMERA):
            places = {place for place, i in by_place.items() if i in ids}
            # The middle detector belongs to one arm of a spiral, not to both.
            assert places - {(0, 0)} == {(-x, -y) for x, y in places} - {(0, 0)}, text
    for text in ("rings", "rings(2)", "crosses", "spiral", "spiral(5,2)", "spiral(1)"):
        first, second = parse_pattern(text).cycle(CAMERA)
        assert first | second == CAMERA.science_ids
        assert not first & second


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_rings_are_as_many_as_asked_for(n):
    # Along the middle row from the centre outwards, lit runs are counted; the row ends within the last ring.
    chosen = selected(f"rings({n})")
    row = sorted((d.x_mm, d.id in chosen) for d in CAMERA.detectors if d.id < 189 and abs(d.y_mm) < 1 and d.x_mm > -1)
    runs = sum(on and not before for (_, before), (_, on) in pairwise(row))
    assert runs == n
    assert not row[0][1]


def test_widths_are_counted_in_detectors():
    assert len(selected("horizontal(3)")) == 45
    assert selected("horizontal(3)") == selected("R20|R21|R22|R23|R24")
    assert selected("cross(3)") == selected("R20|R21|R22|R23|R24|R02|R12|R32|R42")
