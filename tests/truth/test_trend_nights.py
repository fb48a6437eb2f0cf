"""A fortnight of raws: what goes wrong in the electronics is read out, measured, stored, followed, and named."""

from datetime import UTC, datetime

import numpy as np
import pytest

from payloads.trend.search import Kind
from rapid.results.store import open_results
from rapid.trends.models import AlarmState
from rapid.trends.watch import TrendWatch
from rapid.worker.run import PipelineRunner, RawInput
from replay.fits_writer import raw_bytes
from replay.simulate import primary_header

N_NIGHTS = 14
CHANGED = 11
"""First night of the changes."""

JUMPED, DEAD = "C12", "C05"
JUMP_ADU = 4


@pytest.fixture
def nights(observatory, tmp_path):
    """Take a bias each night, run the pipeline of the installation, store what it says."""
    results = open_results(str(tmp_path / "results.sqlite"))
    runner = PipelineRunner()
    det = observatory.detector
    names = [amp.name for amp in det.amps]
    for night in range(N_NIGHTS):
        (exposure,) = observatory.plan({"kind": "bias", "n": 1}, day_obs=20261101 + night, seed=night)
        stack, _ = observatory.renderer.render(exposure, det)
        if night >= CHANGED:
            # The level of the imaging pixels moves, that of the overscan does not: nothing of it is subtracted.
            box = det.amp_by_name[JUMPED].data
            stack[names.index(JUMPED)][box.slices] += JUMP_ADU
            stack[names.index(DEAD)] = 20_000
        raw = raw_bytes(primary_header(exposure, observatory.camera, det), stack, det)
        results.put_result(runner.run(RawInput(exposure.obs_id, raw), camera=observatory.camera).result)
    yield results
    results.close()


def test_a_jump_and_a_dead_amp_of_a_fortnight_of_raws_are_named_and_dated(nights, observatory):
    TrendWatch(nights.engine).run(now=datetime(2026, 11, 15, tzinfo=UTC))
    watch = TrendWatch(nights.engine)
    alarms = [one for one in watch.alarms.alarms("TruthCam") if one.state is AlarmState.OPEN]
    assert {one.onset_day for one in alarms} == {20261101 + CHANGED}
    assert {one.amp for one in alarms} == {JUMPED, DEAD}
    (jump,) = [one for one in alarms if (one.amp, one.metric) == (JUMPED, "mean_e")]
    assert jump.kind is Kind.STEP
    gain = observatory.detector.amp_by_name[JUMPED].gain
    assert jump.size == pytest.approx(JUMP_ADU * gain, rel=0.1)
    dead = {one.metric: one.kind for one in alarms if one.amp == DEAD}
    assert dead["stdev_e"] is Kind.DEAD
    found = watch.trends.history("TruthCam", "stdev_e", detector=94, amp=DEAD)
    assert np.array(found[0].amps[DEAD][CHANGED:]) == pytest.approx(0.0, abs=1e-6)
    assert found[0].days[0] == 20261101
