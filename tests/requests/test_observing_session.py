"""An afternoon and a night, as the author of an observing script would write them: real processes, a simulated camera."""

import asyncio

import pytest

from rapid.client import AsyncRapidClient, RequestNotDoneError
from rapid.results.store import open_results
from rapid.wiring.settings import make_settings
from rapid.wiring.supervisor import Supervisor
from replay.simulate import NightSimulator, directory_sink
from tests.support.night import adopt_small_camera, make_plan

BLOCKS = [
    {"kind": "bias", "n": 4},
    {"kind": "focus_sweep", "positions_mm": [-0.9, -0.5, -0.1, 0.3, 0.7], "physical_filter": "r_57"},
    {"kind": "science", "n": 1, "physical_filter": "r_57"},
]
WAIT_S = 120.0
"""For a busy machine; each step takes seconds."""


class Camera:
    """The script's camera: takes the next exposures of the plan, and returns their ids."""

    def __init__(self, simulator: NightSimulator) -> None:
        self._simulator = simulator
        self._next = iter(simulator.exposures)

    async def take(self, n: int) -> list[int]:
        exposures = [next(self._next) for _ in range(n)]
        for exposure in exposures:
            await asyncio.to_thread(lambda taken=exposure: list(self._simulator.take(taken)))
        return [exposure.exposure_id for exposure in exposures]


async def observe(camera: Camera, rapid: AsyncRapidClient) -> dict[str, object]:
    """The script."""
    told: dict[str, object] = {}

    # Biases; go on when the master is built and verified.
    biases = await rapid.request(
        next={"n": 4, "image_type": "bias"}, combine="build_bias", label="afternoon biases", accept_s=30
    )
    await camera.take(4)
    bias = (await biases.wait(WAIT_S)).calib
    told["bias"] = bias
    if not bias.passed:
        return told

    # A focus sweep; ask for best focus while it is being taken.
    sweep = await rapid.request(next={"n": 5, "image_type": "focus"}, combine="focus_sweep")
    await camera.take(5)
    told["focus"] = (await sweep.wait(WAIT_S)).focus

    # Science; the exposure is to be processed whole, whatever pattern is in force.
    science = await rapid.request(next=1, guaranteed=True, deadline_s=WAIT_S)
    told["taken"] = await camera.take(1)
    told["science"] = await science.wait(WAIT_S)

    # A reprocessing that turns out not to be needed.
    redo = await rapid.request(
        exposures=told["taken"], pipeline="quicklook", config={"isr": {"flat": False}}, priority="backlog", label="redo"
    )
    await redo.cancel()
    try:
        await redo.wait(WAIT_S)
    except RequestNotDoneError as ended:
        told["redo"] = ended.record
    return told


@pytest.mark.slow
@pytest.mark.timeout(280)
async def test_an_observing_script_gets_its_answers(tmp_path, monkeypatch):
    adopt_small_camera(tmp_path, monkeypatch)
    plan = make_plan(BLOCKS, stars_per_detector=60)
    (tmp_path / "raws").mkdir()
    settings = make_settings(camera="SmallCam9", raws=str(tmp_path / "raws"), data=tmp_path / "data", port=0)
    supervisor = Supervisor(settings, n_workers=2)
    simulator = NightSimulator(plan, directory_sink(tmp_path / "raws"))
    await asyncio.to_thread(supervisor.start)
    try:
        async with AsyncRapidClient(supervisor.redis_url, "SmallCam9", by="observer", outage_s=30.0) as rapid:
            told = await observe(Camera(simulator), rapid)
            listed = await rapid.recent()
    finally:
        simulator.close()
        await asyncio.to_thread(supervisor.stop)

    bias = told["bias"]
    assert bias.passed, bias.failures
    assert (bias.n_amps, len(bias.calib_ids), bias.failing_amps) == (9 * 16, 9, {})
    assert bias.inputs == (2026112000001, 2026112000002, 2026112000003, 2026112000004)

    focus = told["focus"]
    assert focus["n_points"] == 5
    assert 0 < focus["best_focus_error_mm"] < 0.3
    assert abs(focus["best_focus_mm"] - plan.best_focus_mm) < 4 * focus["best_focus_error_mm"]

    science = told["science"]
    assert science.is_complete
    assert science.exposures[0].n_finished == 9
    assert science.exposures[0].metrics["psf_fwhm_arcsec_median"] > 0

    redo = told["redo"]
    assert redo.state.value == "cancelled"
    assert [record.state.value for record in listed] == ["cancelled", "done", "done", "done"]

    results = open_results(settings.results)
    of_the_night = results.results(told["taken"][0], run="prompt")
    assert len(of_the_night) == 9
    assert all(result.provenance.calibs["bias"] in bias.calib_ids.values() for result in of_the_night)
    summary = results.latest_summary("SmallCam9", told["taken"][0])
    assert summary.control["guaranteed"] is True
    results.close()
