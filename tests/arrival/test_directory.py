"""Raws that land in a directory, by every way a file can come into one."""

import asyncio
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from rapid.arrival.decide import Patience
from rapid.arrival.directory import DirectorySource
from rapid.arrival.models import ExpectedSensors, RawArrived, RawQuarantined
from rapid.arrival.source import open_source, read_raw
from rapid.errors import ConfigurationError, NotFoundError, TruncatedRawError
from tests.support.raws import make_raw, raw_name

# watchdog's own thread; see rapid.arrival.directory.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")

QUICK = Patience(settle_s=0.2, closed_s=0.4, open_s=1.5)
DAY = 20261120 * 100_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "raws"
    folder.mkdir()
    return folder


@pytest.fixture
async def watched(root, watch, lsstcam):
    """A watch that is watching: its first raw has come."""
    one = watch(DirectorySource(root, camera=lsstcam, patience=QUICK))
    (root / raw_name(99_999)).write_bytes(make_raw(99_999))
    await one.count(1)
    one.said.clear()
    return one


async def wait_s(seconds: float) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)


async def test_a_raw_that_is_written_arrives(root, watched):
    path = root / raw_name(1)
    path.write_bytes(make_raw(1))
    (raw,) = await watched.count(1)
    assert isinstance(raw, RawArrived)
    assert (raw.uri, raw.exposure_id, raw.detector, raw.camera) == (str(path), DAY + 1, 94, "LSSTCam")
    assert raw.size_bytes == path.stat().st_size
    assert raw.name.detector_name == "R22_S11"
    assert raw.replaces is None
    assert read_raw(raw.uri) == watched.source.read(raw.uri) == make_raw(1)


async def test_its_header_is_told_once_from_memory_and_then_from_the_file(root, watched):
    path = root / raw_name(1)
    path.write_bytes(make_raw(1))
    await watched.count(1)
    first, second = (watched.source.read_header(str(path)) for _ in range(2))
    assert first == second
    assert first.info.exposure_id == DAY + 1
    assert first.header["FILTER"] == "r_57"
    path.unlink()
    with pytest.raises(NotFoundError):
        watched.source.read_header(str(path))


async def test_a_raw_arrives_within_a_fraction_of_a_second(root, watched):
    path = root / raw_name(1)
    begin = time.monotonic()
    path.write_bytes(make_raw(1))
    (raw,) = await watched.count(1)
    assert raw.arrived_monotonic_s - begin < 0.5


def by_cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", source, target], check=True, timeout=20)


def by_cp_with_times(source: Path, target: Path) -> None:
    os.utime(source, (1_000_000_000, 1_000_000_000))
    subprocess.run(["cp", "-p", source, target], check=True, timeout=20)


def by_mv(source: Path, target: Path) -> None:
    source.rename(target)


def by_rsync_habit(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.Qw3xYz")
    shutil.copy(source, temporary)
    temporary.rename(target)


def by_part_name(source: Path, target: Path) -> None:
    temporary = target.with_name(f"{target.name}.part")
    shutil.copy(source, temporary)
    temporary.rename(target)


def by_hard_link(source: Path, target: Path) -> None:
    target.hardlink_to(source)


def by_symlink(source: Path, target: Path) -> None:
    target.symlink_to(source)


WAYS = [by_cp, by_cp_with_times, by_mv, by_rsync_habit, by_part_name, by_hard_link, by_symlink]


@pytest.mark.parametrize("come", WAYS, ids=[way.__name__ for way in WAYS])
@pytest.mark.parametrize("folder", ["", "20261120/MC_O_20261120_000001"], ids=["known folder", "new folder"])
async def test_a_raw_arrives_once_by_every_way(root, watched, tmp_path, come, folder):
    source = tmp_path / "elsewhere.fits"
    source.write_bytes(make_raw(1))
    target = root / folder / raw_name(1)
    target.parent.mkdir(parents=True, exist_ok=True)
    come(source, target)
    (raw,) = await watched.count(1)
    assert (raw.uri, raw.exposure_id) == (str(target), DAY + 1)
    await watched.nothing_more()


async def test_a_folder_of_raws_that_is_moved_in_arrives(root, watched, tmp_path):
    folder = tmp_path / "20261120" / "deep" / "er"
    folder.mkdir(parents=True)
    for seq_num in range(1, 4):
        (folder / raw_name(seq_num)).write_bytes(make_raw(seq_num))
    (tmp_path / "20261120").rename(root / "20261120")
    said = await watched.count(3)
    assert {raw.exposure_id for raw in said} == {DAY + 1, DAY + 2, DAY + 3}
    await watched.nothing_more()


async def test_three_exposures_within_a_millisecond_are_three_exposures(root, watched):
    contents = [(root / raw_name(seq_num), make_raw(seq_num)) for seq_num in (1, 2, 3)]
    for path, data in contents:
        path.write_bytes(data)
    said = await watched.count(3)
    assert sorted(raw.exposure_id for raw in said) == [DAY + 1, DAY + 2, DAY + 3]


async def test_raws_in_new_folders_made_at_full_speed_all_arrive_once(root, watched):
    """The race between the making of a folder, its first files, and our watch on it."""
    expected = set()
    for seq_num in range(1, 61):
        folder = root / "20261120" / f"MC_O_20261120_{seq_num:06d}"
        folder.mkdir(parents=True)
        for raft in ("R21", "R22", "R23"):
            (folder / raw_name(seq_num, f"{raft}_S11")).write_bytes(make_raw(seq_num, raft))
            expected.add((DAY + seq_num, f"{raft}_S11"))
    said = await watched.count(180)
    assert {(raw.exposure_id, raw.name.detector_name) for raw in said} == expected
    await watched.nothing_more()


async def test_a_raw_that_is_being_written_is_not_touched_until_its_writer_closes_it(root, watched):
    data = make_raw(1)
    with (root / raw_name(1)).open("wb") as file:
        for start in range(0, len(data), 10_000):
            file.write(data[start : start + 10_000])
            file.flush()
            await wait_s(0.2)
        await watched.nothing_more(0.5)  # complete, but still open
    await watched.count(1)
    assert watched.quarantined == []


async def test_a_raw_whose_space_is_reserved_first_is_not_taken_for_complete(root, watched):
    data = make_raw(1)
    with (root / raw_name(1)).open("wb") as file:
        file.write(data[: len(data) - 9000] + bytes(9000))  # headers and length are there, pixels are not
        file.flush()
        await watched.nothing_more(0.8)
        file.seek(0)
        file.write(data)
    (raw,) = await watched.count(1)
    assert read_raw(raw.uri) == data
    await watched.nothing_more()


async def test_a_raw_continued_after_its_writer_closed_it_arrives_when_it_is_whole(root, watched):
    data = make_raw(1)
    path = root / raw_name(1)
    path.write_bytes(data[:20_000])
    await wait_s(0.2)
    with path.open("ab") as file:
        file.write(data[20_000:])
    await watched.count(1)
    assert watched.quarantined == []


BAD = [
    ("truncated in its pixels", make_raw(1)[:30_000], "raw_truncated", "its data end at byte"),
    ("truncated in a header", make_raw(1)[:4000], "raw_truncated", "ends"),
    ("empty", b"", "raw_empty", "empty"),
    ("text", b"<html>not found</html>" * 500, "raw_not_fits", "not FITS"),
    (
        "of another camera",
        make_raw(1).replace(b"'LSSTCam '", b"'LATISS  '").replace(b"MC", b"AT"),
        "raw_wrong_camera",
        "L",
    ),
    (
        "without an exposure id",
        make_raw(1).replace(b"OBSID   ", b"NOTHING ").replace(b"SEQNUM", b"NOTNUM"),
        "raw_bad_header",
        "",
    ),
]


@pytest.mark.parametrize(("data", "code", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_a_raw_that_stays_unreadable_is_quarantined_with_its_reason_and_stops_nothing(
    root, watched, data, code, reason
):
    bad = root / "something_R22_S11.fits"
    bad.write_bytes(data)
    (root / raw_name(2)).write_bytes(make_raw(2))
    await watched.count(2)
    (one,) = watched.quarantined
    assert (one.uri, one.code, one.size_bytes) == (str(bad), code, len(data))
    assert reason in one.reason
    assert [raw.exposure_id for raw in watched.raws] == [DAY + 2]
    await watched.nothing_more()


async def test_a_quarantined_raw_that_is_sent_again_whole_arrives(root, watched):
    path = root / raw_name(1)
    path.write_bytes(make_raw(1)[:30_000])
    (bad,) = await watched.count(1)
    assert isinstance(bad, RawQuarantined)
    assert (bad.exposure_id, bad.detector_name) == (DAY + 1, "R22_S11")
    path.write_bytes(make_raw(1))
    said = await watched.count(2)
    assert said[1].exposure_id == DAY + 1


def begin_to_write(path: Path) -> subprocess.Popen[bytes]:
    script = f"exec 3>>{path}; head -c 30000 /dev/zero >&3; read x"
    return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)


async def test_a_raw_whose_writer_died_in_the_middle_is_quarantined(root, watched):
    path = root / raw_name(1)
    path.touch()
    writer = begin_to_write(path)
    try:
        await watched.nothing_more(0.8)  # it lives: the file may grow
    finally:
        writer.kill()
        writer.communicate(timeout=20)
    (one,) = await watched.count(1)
    assert one.code == "raw_not_fits"


async def test_a_raw_that_cannot_be_opened_is_quarantined_not_fatal(root, watched):
    path = root / raw_name(1)
    (root / "loop.fits").symlink_to(root / "loop.fits")
    os.mkfifo(root / raw_name(2))
    (root / raw_name(3)).mkdir()
    path.write_bytes(make_raw(1))
    await watched.count(1)
    await watched.nothing_more()


async def test_other_files_are_nobodys_business(root, watched):
    for name in ("x.json", "x.png", "x.fits.tmp", ".hidden.fits", "x.txt", f".{raw_name(1)}.a1B2c3", "README"):
        (root / name).write_bytes(make_raw(1))
    await watched.nothing_more(0.8)


async def test_the_list_of_expected_sensors_is_a_message_of_its_own(root, watched):
    path = root / "MC_O_20261120_000001_expectedSensors.json"
    path.write_text('{"expectedSensors": {"R22_S11": "SCIENCE", "R22_S12": "SCIENCE"}}')
    (said,) = await watched.count(1)
    assert said == ExpectedSensors(uri=str(path), exposure_id=DAY + 1, detector_names=frozenset({"R22_S11", "R22_S12"}))


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", "raw_truncated"), ("", "raw_empty"), ("{}", "raw_corrupt"), ('{"expectedSensors": [1]}', "raw_corrupt")],
    ids=["cut off", "empty", "without sensors", "of no sensors' names"],
)
async def test_a_bad_list_of_sensors_is_quarantined(root, watched, text, code):
    (root / "MC_O_20261120_000001_expectedSensors.json").write_text(text)
    (said,) = await watched.count(1)
    assert isinstance(said, RawQuarantined)
    assert said.code == code


async def test_a_copy_under_another_name_is_no_second_raw(root, watched):
    (root / raw_name(1)).write_bytes(make_raw(1))
    await watched.count(1)
    (root / "copy_R22_S11.fits").write_bytes(make_raw(1))
    (root / "link.fits").hardlink_to(root / raw_name(1))
    await watched.nothing_more()


async def test_a_raw_written_anew_with_other_content_replaces_the_first(root, watched):
    path = root / raw_name(1)
    path.write_bytes(make_raw(1))
    await watched.count(1)
    path.write_bytes(make_raw(1, n_segments=17))
    said = await watched.count(2)
    assert said[1].replaces == str(path)
    assert said[1].size_bytes > said[0].size_bytes


async def test_a_guider_file_is_not_the_detectors_raw(root, watched):
    (root / raw_name(1, "R00_SG0")).write_bytes(make_raw(1, "R00", "SG0"))
    (root / raw_name(1, "R00_SG0_guider")).write_bytes(make_raw(1, "R00", "SG0"))
    said = await watched.count(2)
    assert sorted(raw.is_guider for raw in said) == [False, True]


async def test_what_is_there_at_the_start_comes_newest_exposure_first(root, watch, lsstcam):
    for seq_num in (3, 1, 2):
        folder = root / f"MC_O_20261120_{seq_num:06d}"
        folder.mkdir()
        (folder / raw_name(seq_num)).write_bytes(make_raw(seq_num))
        (folder / f"MC_O_20261120_{seq_num:06d}_expectedSensors.json").write_text('{"expectedSensors": ["R22_S11"]}')
    said = await watch(DirectorySource(root, camera=lsstcam)).count(6)
    assert [(type(one), one.exposure_id % 100_000) for one in said] == [
        (kind, seq_num) for seq_num in (3, 2, 1) for kind in (ExpectedSensors, RawArrived)
    ]


async def test_every_watch_begins_anew(root, watch, lsstcam):
    (root / raw_name(1)).write_bytes(make_raw(1))
    source = DirectorySource(root, camera=lsstcam)
    for _ in range(2):
        one = watch(source)
        await one.count(1)
        await one.stop()


async def test_the_sweep_finds_what_no_event_told_of(root, watch, lsstcam, monkeypatch):
    def no_watch(_):
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("rapid.arrival.directory.Observer.start", no_watch)
    monkeypatch.setattr("rapid.arrival.directory.UNWATCHED_SWEEP_S", 0.2)
    one = watch(DirectorySource(root, camera=lsstcam, patience=QUICK))
    for seq_num in (1, 2):
        (root / raw_name(seq_num)).write_bytes(make_raw(seq_num))
        await one.count(seq_num)
    await one.nothing_more()


async def test_a_directory_that_is_replaced_is_watched_again(root, watch, lsstcam, tmp_path):
    one = watch(DirectorySource(root, camera=lsstcam, patience=QUICK, sweep_s=0.3))
    (root / raw_name(1)).write_bytes(make_raw(1))
    await one.count(1)
    root.rename(tmp_path / "old")
    root.mkdir()
    (root / raw_name(2)).write_bytes(make_raw(2))
    await one.count(2)
    await wait_s(0.7)
    begin = time.monotonic()
    (root / raw_name(3)).write_bytes(make_raw(3))
    said = await one.count(3)
    assert said[2].arrived_monotonic_s - begin < 0.25


async def test_raws_in_a_folder_behind_a_link_are_found_by_listing(root, watch, lsstcam, tmp_path, monkeypatch):
    monkeypatch.setattr("rapid.arrival.directory.UNWATCHED_SWEEP_S", 0.2)
    (tmp_path / "elsewhere").mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    one = watch(DirectorySource(root, camera=lsstcam, patience=QUICK, sweep_s=1.0))
    (root / raw_name(1)).write_bytes(make_raw(1))
    await one.count(1)
    for seq_num in (2, 3):
        (tmp_path / "elsewhere" / raw_name(seq_num)).write_bytes(make_raw(seq_num))
        await one.count(seq_num, 5.0)


async def test_a_link_that_leads_back_is_followed_once(root, watch, lsstcam):
    (root / "loop").symlink_to(root)
    (root / raw_name(1)).write_bytes(make_raw(1))
    one = watch(DirectorySource(root, camera=lsstcam))
    await one.count(1)
    await one.nothing_more()


async def test_a_raw_removed_before_it_was_whole_is_forgotten(root, watched):
    path = root / raw_name(1)
    path.write_bytes(make_raw(1)[:30_000])
    path.unlink()
    await watched.nothing_more(1.0)


async def test_a_folder_that_is_not_there_is_made(tmp_path, watch):
    root = tmp_path / "a" / "b"
    one = watch(open_source(root.as_uri()))
    (tmp_path / "raw").write_bytes(make_raw(1))
    for _ in range(100):
        if root.is_dir():
            break
        await wait_s(0.05)
    (tmp_path / "raw").rename(root / raw_name(1))
    await one.count(1)


def test_reading_a_raw_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        read_raw(str(tmp_path / "x.fits"))
    with pytest.raises(ConfigurationError):
        read_raw(str(tmp_path))
    path = tmp_path / "a b#.fits"
    path.write_bytes(b"x")
    assert read_raw(str(path)) == read_raw(path.as_uri()) == b"x"


def test_a_truncated_raws_header_is_not_told(root, lsstcam):
    path = root / raw_name(1)
    path.write_bytes(make_raw(1)[:30_000])
    with pytest.raises(TruncatedRawError):
        DirectorySource(root, camera=lsstcam).read_header(str(path))
