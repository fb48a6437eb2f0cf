"""A recording is read as it was written, or refused with the place that is wrong."""

import json
import zipfile

import numpy as np
import pytest

from rapid.errors import ConfigurationError
from rapid.exposure.fits_header import scan
from replay.events import ControlEvent, NoteEvent, RawsEvent
from replay.keep import keep, read_binned, read_stamps
from replay.plan import make_plan
from replay.planned import recording_of_plan
from replay.play import steps_of
from replay.recording import VERSION, PixelKind, ResultTable, SummaryFacts, read_recording, write_recording
from replay.regenerate import Regenerator
from replay.simulate import NightSimulator

PLAN = {
    "camera": "TestCam205",
    "day_obs": 20261120,
    "seed": 3,
    "stars_per_detector": 20,
    "detectors": [90, 94],
    "blocks": [
        {"kind": "bias", "n": 1},
        {"kind": "science", "n": 2, "physical_filter": "r_57", "missing": {1: [90]}},
    ],
}


@pytest.fixture(scope="module")
def plan():
    return make_plan(PLAN)


@pytest.fixture
def recording(plan):
    made = recording_of_plan(
        plan, title="a night", extra=[ControlEvent(at_s=3.0, change={"pattern": "ccd_checkerboard"}, by="ann")]
    )
    made.results = [
        ResultTable(exposure=2026112000002, pipeline="quicklook", detectors=(90, 94), metrics={"a": (1.5, None)})
    ]
    made.summaries = [
        SummaryFacts(exposure=2026112000002, pipeline="quicklook", n_finished=2, n_expected=2, is_complete=True)
    ]
    return made


@pytest.fixture(scope="module")
def raws(plan):
    found: dict[str, bytes] = {}
    simulator = NightSimulator(plan, found.__setitem__)
    try:
        for exposure in simulator.exposures:
            list(simulator.take(exposure))
    finally:
        simulator.close()
    return found


@pytest.mark.parametrize("name", ["night", "night.zip"])
def test_a_recording_is_read_as_it_was_written(recording, tmp_path, name):
    write_recording(recording, tmp_path / name, pixels=[("a/b.fits", b"pixels")])
    read = read_recording(tmp_path / name)
    assert read.manifest == recording.with_manifest(header_order=tuple(recording.headers.order)).manifest
    assert (read.events, read.headers, read.exposures) == (recording.events, recording.headers, recording.exposures)
    assert (read.results, read.summaries) == (recording.results, recording.summaries)


def test_the_same_night_gives_the_same_zip_file(recording, tmp_path):
    for name in ("one.zip", "two.zip"):
        write_recording(recording, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_raws_made_from_a_recording_are_those_that_were_simulated(recording, raws, tmp_path):
    write_recording(recording, tmp_path / "night.zip")
    read = read_recording(tmp_path / "night.zip")
    regenerator = Regenerator(read)
    made = {}
    for step in steps_of(read.events):
        if step.detector:
            raw = regenerator.raw(step.exposure, step.detector)
            made[raw.key] = raw.data
        elif step.event.kind == "expected_sensors":
            raw = regenerator.sidecar(step.event.exposure, step.event.detectors)
            made[raw.key] = raw.data
    assert made == raws


@pytest.mark.parametrize("kind", [PixelKind.RICE, PixelKind.BINNED, PixelKind.STAMPS])
def test_kept_pixels_are_played_as_they_were_kept(recording, raws, tmp_path, kind):
    detector = recording.camera().by_name["R22_S11"]
    key, data = next((key, data) for key, data in raws.items() if key.endswith("000002_R22_S11.fits"))
    kept = recording.with_manifest(pixels=kind, binning=4)
    write_recording(kept, tmp_path / "night", pixels=[(key, keep(kind.value, data, detector, binning=4))])
    made = Regenerator(read_recording(tmp_path / "night")).raw(2026112000002, "R22_S11")
    if kind is PixelKind.RICE:
        assert made.data == data
        return
    structure, original = scan(made.data), scan(data)
    assert structure.primary == original.primary
    assert len(made.data) > 0.5 * len(data)


def test_binned_and_stamped_pixels_keep_level_and_sources(recording, raws):
    from payloads.raw.segments import SegmentReader

    detector = recording.camera().by_name["R22_S11"]
    data = next(data for key, data in raws.items() if key.endswith("000002_R22_S11.fits"))
    original = SegmentReader().read(scan(data), detector).pixels.astype(float)
    rng = np.random.default_rng(1)
    binned = read_binned(keep("binned", data, detector, binning=4), detector, rng)
    stamped = read_stamps(keep("stamps", data, detector, binning=4), detector, rng)
    for found in (binned, stamped):
        assert found.shape == original.shape
        # The level of each amp to a hundredth of its noise, times a few.
        assert np.abs(np.median(found - original, axis=(1, 2))).max() < 5
    assert stamped.max() == original.max()


def test_a_recording_of_an_earlier_version_is_read_and_written_as_one_of_today(recording, tmp_path):
    write_recording(recording, tmp_path / "night")
    path = tmp_path / "night" / "recording.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    write_recording(read_recording(tmp_path / "night"), tmp_path / "again")
    assert json.loads((tmp_path / "again" / "recording.json").read_text())["version"] == VERSION


def test_a_recording_of_a_later_version_is_refused(recording, tmp_path):
    write_recording(recording, tmp_path / "night")
    path = tmp_path / "night" / "recording.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(ConfigurationError, match=r"is 99; this release reads up to 2"):
        read_recording(tmp_path / "night")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        pytest.param("recording.json", "{", "not JSON", id="no JSON"),
        pytest.param("recording.json", "[]", "no rapid-recording", id="another document"),
        pytest.param("events.jsonl", '{"at_s": 1, "kind": "raws"}\n', r"line 1: raws\.exposure", id="a field is missing"),
        pytest.param("events.jsonl", '{"at_s": -1, "kind": "note", "name": "x"}\n', "line 1: note.at_s", id="before the night"),
        pytest.param("events.jsonl", '{"at_s": 1, "kind": "party"}\n', "line 1", id="an unknown kind"),
        pytest.param("exposures.jsonl", "x\n", "line 1", id="no exposure"),
        pytest.param("headers.txt", "what\n", "line 1", id="no header"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_and_line(recording, tmp_path, name, text, complaint):
    write_recording(recording, tmp_path / "night")
    (tmp_path / "night" / name).write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read_recording(tmp_path / "night")
    assert name in caught.value.message


def test_what_is_no_recording_is_said_to_be_none(tmp_path):
    (tmp_path / "text").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    for name in ("text", "other.zip", "nowhere"):
        with pytest.raises(ConfigurationError):
            read_recording(tmp_path / name)


def test_nothing_but_a_recording_is_ever_replaced(recording, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigurationError, match="is there already"):
        write_recording(recording, tmp_path / "work", overwrite=True)
    write_recording(recording, tmp_path / "night")
    with pytest.raises(ConfigurationError, match="is there already"):
        write_recording(recording, tmp_path / "night")
    write_recording(recording, tmp_path / "night", overwrite=True)
    assert (tmp_path / "work" / "thesis.txt").read_text() == "years"


def test_tolerances_beside_a_recording_stay_when_it_is_replaced(recording, tmp_path):
    write_recording(recording, tmp_path / "night", pixels=[("a", b"1")])
    (tmp_path / "night" / "tolerances.yaml").write_text("extra: true\n")
    write_recording(recording.with_manifest(title="again"), tmp_path / "night", overwrite=True)
    assert (tmp_path / "night" / "tolerances.yaml").read_text() == "extra: true\n"
    assert not (tmp_path / "night" / "pixels").exists()
    assert read_recording(tmp_path / "night").manifest.title == "again"


def test_a_place_where_nothing_can_be_written_is_named(recording, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file.night\.zip cannot be written"):
        write_recording(recording, tmp_path / "file" / "night.zip")


def test_raws_come_in_their_order_or_shuffled_alike_for_a_seed():
    event = RawsEvent(
        at_s=1.0, exposure=7, detectors=tuple("ABCDEFGH"), after_ms=tuple(range(8)), quarantined={"C": "x"}
    )
    steps = steps_of([NoteEvent(at_s=0.0, name="seen"), event])
    assert "".join(step.detector for step in steps) == "ABCDEFGH"
    assert [step.problem for step in steps] == ["", "", "x", "", "", "", "", ""]
    shuffled = ["".join(step.detector for step in steps_of([event], seed=seed)) for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert sorted(shuffled[0]) == list("ABCDEFGH")
    assert [step.at_s for step in steps_of([event], seed=1)] == [step.at_s for step in steps]


def test_a_quarantined_raw_is_spoilt_again(recording):
    regenerator = Regenerator(recording)
    whole = regenerator.raw(2026112000002, "R22_S11")
    cut = regenerator.raw(2026112000002, "R22_S11", problem="raw_truncated")
    assert (whole.is_whole, cut.is_whole) == (True, False)
    assert 0 < len(cut.data) < len(whole.data)
    assert regenerator.raw(2026112000002, "R22_S11", problem="raw_empty").data == b""


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("headers.txt", lambda _: "", r"headers\.txt: nothing is said of exposure 2026112000001"),
        ("headers.txt", lambda text: text[: text.index("[exposure 2026112000002")], "of exposure 2026112000002"),
        (
            "recording.json",
            lambda text: text.replace('"pixels": "seed"', '"pixels": "rice"'),
            r"pixels/.*R22_S00\.fits: is missing|pixels/.*is missing",
        ),
    ],
    ids=["no headers", "headers of the first exposure alone", "pixels that were left out"],
)
def test_a_raw_of_which_something_is_missing_is_not_made_up(recording, tmp_path, file, change, complaint):
    write_recording(recording, tmp_path / "night")
    path = tmp_path / "night" / file
    path.write_text(change(path.read_text()))
    read = read_recording(tmp_path / "night")
    made = Regenerator(read)

    def make_all() -> None:
        for exposure in read.exposures:
            made.raw(exposure, "R22_S11")

    with pytest.raises(ConfigurationError, match=complaint):
        make_all()


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("recording.json", '"camera": "TestCam205"', '"camera": "../../else"', "recording.json: camera"),
        ("exposures.jsonl", '"obs_id":"', '"obs_id":"../../else/', "exposures.jsonl: line 1: obs_id"),
    ],
    ids=["of a camera", "of an exposure"],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(recording, tmp_path, file, old, new, complaint):
    write_recording(recording, tmp_path / "night")
    path = tmp_path / "night" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigurationError, match=complaint):
        read_recording(tmp_path / "night")
