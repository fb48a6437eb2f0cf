"""What is done to a process is really done to it, and undone."""

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from replay import processes

WRITER = """
import sys
for line in sys.stdin:
    try:
        with open(line.strip(), "w") as file:
            file.write("x" * 100)
        print("written", flush=True)
    except OSError as error:
        print("error", error.errno, flush=True)
"""


@pytest.fixture
def writer():
    """A process that writes a file for each line that it is told, in a group of its own as a role is."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    processes.signal_group(process.pid, signal.SIGKILL)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    process.wait(60)


def write(process, path):
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    return process.stdout.readline().split()


def test_on_a_full_disk_nothing_is_written_until_there_is_room(writer, tmp_path):
    assert write(writer, tmp_path / "before") == ["written"]
    room = processes.fill_disk(writer.pid, 3600.0)
    assert write(writer, tmp_path / "during")[0] == "error"
    assert (tmp_path / "during").stat().st_size == 0
    room.cancel()
    room.function()
    assert write(writer, tmp_path / "after") == ["written"]


def test_what_is_frozen_stands_until_it_thaws(writer, tmp_path):
    assert write(writer, tmp_path / "one") == ["written"]
    thaw = processes.freeze(writer.pid, 0.5)
    assert write(writer, tmp_path / "two") == ["written"]  # only after the thaw: until then nobody answers
    thaw.join(60)
    assert psutil.Process(writer.pid).status() != psutil.STATUS_STOPPED


def test_what_is_slowed_goes_on_and_runs_freely_in_the_end(writer, tmp_path):
    slowed = processes.slow_down(writer.pid, 0.3, 0.6)
    assert write(writer, tmp_path / "one") == ["written"]
    slowed.join(60)
    assert not slowed.is_alive()
    assert write(writer, tmp_path / "two") == ["written"]


def test_what_is_slowed_stands_again_and_again(writer):
    slowed = processes.slow_down(writer.pid, 0.3, 5.0)
    for _ in range(2):
        assert os.waitid(os.P_PID, writer.pid, os.WSTOPPED).si_status == signal.SIGSTOP
        assert os.waitid(os.P_PID, writer.pid, os.WCONTINUED).si_status == signal.SIGCONT
    slowed.join(60)


def test_nothing_happens_to_what_has_ended(writer):
    writer.kill()
    writer.wait(60)
    processes.signal_one(writer.pid, signal.SIGKILL)
    processes.signal_group(writer.pid, signal.SIGKILL)
    processes.fill_disk(writer.pid, 0.01).join(60)
    assert processes.children_of(writer.pid) == []


def test_the_end_of_the_newest_log_is_cut_off(tmp_path):
    (tmp_path / "a.incr.aof").write_bytes(b"x" * 100)
    processes.cut_newest_log(tmp_path, lost_bytes=30)
    assert (tmp_path / "a.incr.aof").stat().st_size == 70
    processes.cut_newest_log(tmp_path, lost_bytes=300)
    assert (tmp_path / "a.incr.aof").stat().st_size == 0


def test_a_log_is_cut_where_it_first_says_something(tmp_path):
    (tmp_path / "a.incr.aof").write_bytes(b"one .2. two .3. three .3. four")
    processes.cut_newest_log(tmp_path, since=b".3.")
    assert (tmp_path / "a.incr.aof").read_bytes() == b"one .2. two "
    with pytest.raises(ValueError, match="says nothing of"):
        processes.cut_newest_log(tmp_path, since=b".4.")
