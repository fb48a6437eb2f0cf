"""Guider files through real processes: measured, gathered and kept once, whatever is killed and whatever comes twice."""

import json

import numpy as np
import pytest

from rapid.dispatch.board import Board
from rapid.dispatch.models import EventKind
from rapid.products.store import open_products
from rapid.results.models import DetectorResult
from tests.roles.conftest import Roles
from tests.support.guider import make_guider_raw, make_stamps

CAMERA = "LSSTCam"
N_STAMPS = 12
AMPLITUDE_PX = 1.0
ARCSEC_PER_PX = 0.2
WAIT_S = 180.0
SETTINGS = {"camera": CAMERA, "gather_timeout_s": 600, "regather_timeout_s": 900, "deadline_s": 900}
"""Nothing is gathered because it was late: on a slow machine that would be a version of its own."""


@pytest.fixture
def guiders(roles: Roles) -> Roles:
    """Roles of a camera that has guiders."""
    roles.board.close()
    roles.board = Board(roles.valkey.url, CAMERA)
    roles.board.load()
    return roles


def take(roles: Roles, seq_num: int, folder: str = "first") -> int:
    """Let a guider file arrive, whose star swings along x; return the exposure's id."""
    x = 25 + AMPLITUDE_PX * np.sin(2 * np.pi * np.arange(N_STAMPS) / N_STAMPS)
    path = roles.raws / folder / f"MC_O_20261120_{seq_num:06d}_R00_SG0_guider.fits"
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(make_guider_raw(make_stamps(x, 50 + 0 * x), seq_num=seq_num))
    part.rename(path)
    return 20261120 * 100_000 + seq_num


def wait_for_gathered(roles: Roles, exposure: int) -> None:
    roles.wait_for(
        lambda e: e.kind is EventKind.SUMMARY_READY and e.batch_id == f"prompt.{exposure}.guider", timeout_s=WAIT_S
    )


def result_of(roles: Roles, exposure: int) -> DetectorResult:
    (result,) = roles.results.results(exposure, camera=CAMERA)
    return result


def test_a_guider_file_is_measured_and_gathered_once_though_all_roles_are_killed_and_it_comes_twice(guiders: Roles):
    kinds = ("head", "gather", "worker")
    for kind in kinds:
        guiders.start(kind, f"{kind}-0", **SETTINGS)
    first = take(guiders, 1)
    wait_for_gathered(guiders, first)
    before = result_of(guiders, first)
    assert (before.pipeline, before.metrics["guider_n_with_star"]) == ("guider", N_STAMPS)
    swing = 2.3548 * np.sqrt(0.5 * 0.5 * AMPLITUDE_PX**2) * ARCSEC_PER_PX  # of one axis; the other stands still
    assert before.metrics["guider_motion_fwhm_arcsec"] == pytest.approx(swing, rel=0.05)
    products = open_products(str(guiders.folder / "data/products"))
    assert products.get(before.products["guider_movie"])[4:8] == b"ftyp"
    star = json.loads(products.get(before.products["guider_star"]))
    assert len(star["x_px"]) == N_STAMPS
    assert star["time_s"][1] == pytest.approx(0.5, abs=1e-4)
    summaries = guiders.results.summary_versions(CAMERA, first)

    for kind in kinds:
        guiders.kill(f"{kind}-0")
    take(guiders, 1, "again")
    second = take(guiders, 2)
    for kind in kinds:
        guiders.start(kind, f"{kind}-1", **SETTINGS)
    wait_for_gathered(guiders, second)
    assert result_of(guiders, second).metrics["guider_n_with_star"] == N_STAMPS
    assert result_of(guiders, first) == before
    assert guiders.results.summary_versions(CAMERA, first) == summaries
    assert guiders.stop("worker-1") == 0
