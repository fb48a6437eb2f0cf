"""The example of the documentation, run as a reader would run it, and tables against the stores they come from."""

import os
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import pytest

from rapid.client_tables import DataError, RapidData
from rapid.errors import NotFoundError
from rapid.nightlog.store import NightLog
from tests.display.stage import DAY_OBS, WAIT_S
from tests.display.story import tell_night

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "night_in_a_notebook.py"
EXPOSURE = DAY_OBS * 100_000


@pytest.fixture
def address(stage, serve):
    tell_night(stage)
    NightLog(stage.results.engine).write(stage.camera.name, DAY_OBS, author="ann", now=stage.now, text="clear")
    return serve(stage.settings)


def test_the_example_runs_as_it_stands(address):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), address],
        capture_output=True,
        text=True,
        timeout=10 * WAIT_S,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert "20261120: 10 exposures" in done.stdout
    assert "focus from sweep at 7: 20.0 um" in done.stdout
    assert "ann: clear" in done.stdout


def test_tables_hold_what_the_stores_hold(stage, address):
    data = RapidData(address, timeout_s=WAIT_S)
    night = data.night(DAY_OBS)
    assert list(night["seq_num"]) == [1, 2, 3, 4, 5, 6, 7, 8, 11, 12]
    assert night["psf_fwhm_arcsec_median"].unit == u.arcsec
    assert night["psf_fwhm_arcsec_median"][0] == 0.8
    assert night["psf_fwhm_arcsec_median"].mask[-1]

    detectors = data.exposure(EXPOSURE + 1)
    stored = {r.detector: r for r in stage.results.results(EXPOSURE + 1)}
    assert dict(zip(detectors["detector"], detectors["psf_fwhm_arcsec"], strict=True)) == {
        number: result.metrics["psf_fwhm_arcsec"] for number, result in stored.items()
    }
    amps = data.amps(EXPOSURE + 1, 3, pipeline="quicklook")
    assert list(amps["amp"]) == [amp.name for amp in stage.camera.by_id[3].amps]
    assert amps["read_noise_electron"].unit == u.electron
    assert len(data.night(20300101)) == 0


def test_what_is_not_there_or_not_valid_is_an_error_of_its_own(address):
    data = RapidData(address, timeout_s=WAIT_S)
    with pytest.raises(NotFoundError):
        data.exposure(EXPOSURE + 99)
    with pytest.raises(NotFoundError, match="list of stars"):
        data.stars(EXPOSURE + 1, 3)
    with pytest.raises(DataError) as refused:
        data.night(3)
    assert refused.value.status == 422
