"""A payload child whose worker was killed ends by itself, and without a word."""

import os
import subprocess
import sys

import pytest

from rapid.worker.messages import ChildSettings


@pytest.mark.parametrize("heard_settings", [True, False], ids=["after it was told its settings", "before"])
def test_a_child_whose_worker_is_gone_ends_quietly(tmp_path, heard_settings):
    settings = ChildSettings(
        results_url=str(tmp_path / "results.sqlite"), products_url=str(tmp_path), calibs_path=tmp_path / "calibs"
    )
    read_end, write_end = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "rapid.worker.child", str(write_end)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(write_end,), text=True,
        )  # fmt: skip
    finally:
        os.close(read_end)
        os.close(write_end)
    out, err = child.communicate(settings.model_dump_json() + "\n" if heard_settings else "", timeout=120)
    assert (child.returncode, out, err) == (0, "", "")
