"""A product is there whole or not at all, whatever becomes of its writer."""

import os
import signal
import subprocess
import sys

import pytest

from rapid.products import directory
from rapid.products.directory import DirectoryStore

KILLED_BEFORE_NAMING = """
import os, signal, sys
from pathlib import Path
from rapid.products import directory

directory._give_name = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
directory.DirectoryStore(Path(sys.argv[1])).put("a/b.fits", b"x" * 3_000_000)
"""


@pytest.fixture(params=["without a name first", "under a temporary name first"])
def store(request, tmp_path, monkeypatch):
    if request.param.startswith("under"):
        monkeypatch.setattr(directory, "_write_unnamed", lambda *_, **__: False)
    return DirectoryStore(tmp_path / "products")


def test_a_product_is_written_and_replaced_and_nothing_else_is_left(store):
    store.put("a/b.fits", b"first")
    store.put("a/b.fits", b"second, longer")
    assert store.get("a/b.fits") == b"second, longer"
    assert [path.name for path in (store.root / "a").iterdir()] == ["b.fits"]


def test_a_product_may_be_read_by_whom_the_umask_lets(store):
    before = os.umask(0o027)
    try:
        store.put("a/b.fits", b"data")
    finally:
        os.umask(before)
    assert (store.root / "a/b.fits").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_a_writer_killed_before_the_end_leaves_nothing(tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILLED_BEFORE_NAMING, str(tmp_path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert list((tmp_path / "a").iterdir()) == []
