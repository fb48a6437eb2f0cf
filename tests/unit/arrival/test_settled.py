"""Memory of files that are decided."""

import os
import time

from rapid.arrival.look import Stamp
from rapid.arrival.settled import SettledFiles
from rapid.arrival.sweep import Sweeper


def stamp(number: int) -> Stamp:
    return Stamp(size_bytes=100, modified_ns=number, inode=number)


def add_folder(files: SettledFiles, folder: str, n: int) -> None:
    for number in range(n):
        files.add(f"{folder}/{number}.fits", stamp(number))


def test_a_file_is_held_as_it_was():
    files = SettledFiles(lambda _: True)
    files.add("/raws/a.fits", stamp(1))
    assert files.holds("/raws/a.fits", stamp(1))
    assert not files.holds("/raws/a.fits", stamp(2)), "it has changed"
    assert not files.holds("/raws/b.fits", stamp(1))
    assert not files.holds("/other/a.fits", stamp(1))
    files.add("/raws/a.fits", stamp(2))
    assert files.holds("/raws/a.fits", stamp(2))
    assert len(files) == 1


def test_folders_that_are_over_are_forgotten_the_oldest_first():
    files = SettledFiles(lambda folder: folder != "/open", kept=400, most=10_000)
    add_folder(files, "/open", 100)
    for number in range(20):
        add_folder(files, f"/{number}", 100)
    assert files.holds("/open/0.fits", stamp(0)), "it might be listed again"
    assert not files.holds("/0/0.fits", stamp(0))
    assert files.holds("/19/0.fits", stamp(0))
    assert files.holds("/17/99.fits", stamp(99))
    assert 400 <= len(files) <= 520


def test_a_single_folder_has_its_bound_and_forgets_the_oldest():
    files = SettledFiles(lambda _: False, kept=40, most=400)
    add_folder(files, "/all", 1000)
    assert 200 <= len(files) <= 402
    assert files.holds("/all/999.fits", stamp(999))
    assert not files.holds("/all/0.fits", stamp(0))


def test_a_closed_folder_is_listed_again_only_when_its_names_change(tmp_path):
    folder = tmp_path / "20261120"
    folder.mkdir()
    (folder / "MC_O_20261120_000001_R22_S11.fits").write_bytes(b"x")
    before_ns = time.time_ns() - 120 * 1_000_000_000
    os.utime(folder, ns=(before_ns, before_ns))
    sweeper = Sweeper()
    assert not sweeper.close(str(folder)), "never listed: who knows what is in it"
    assert len(sweeper.sweep(str(tmp_path), now_ns=time.time_ns())) == 1
    assert len(sweeper.sweep(str(tmp_path), now_ns=time.time_ns())) == 1
    assert sweeper.close(str(folder))
    assert sweeper.sweep(str(tmp_path), now_ns=time.time_ns()) == []
    (folder / "MC_O_20261120_000001_R22_S12.fits").write_bytes(b"x")
    assert len(sweeper.sweep(str(tmp_path), now_ns=time.time_ns())) == 2
    assert not sweeper.close(str(folder)), "it has just changed"
    assert len(sweeper.sweep(str(tmp_path), now_ns=time.time_ns())) == 2
    (folder / "MC_O_20261120_000001_R22_S11.fits").unlink()
    assert sweeper.close(str(tmp_path / "gone"))
