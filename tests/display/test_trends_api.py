"""Trends and their alarms over HTTP."""

from datetime import date

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from rapid.trends.simulate import METRICS, channels_of, load_arrays, simulate
from rapid.trends.watch import TrendWatch
from tests.display.stage import WAIT_S
from tests.support.records import make_result

TOKEN = {"Authorization": "Bearer a-long-enough-token", "X-Rapid-User": "ann"}


@pytest.fixture
def url(stage, serve):
    metric = next(one for one in METRICS if one.name == "mean_e")
    channels = channels_of(stage.camera)
    values = simulate(metric, 60, len(channels), np.random.default_rng(1))
    values[40:, 5] += 1.0
    load_arrays(stage.results.engine, stage.camera.name, channels, [metric], lambda _: values, date(2026, 9, 1))
    TrendWatch(stage.results.engine).run(stage.camera.name)
    return serve(stage.settings.model_copy(update={"token": SecretStr("a-long-enough-token")}))


def get(url, path, status=200):
    answer = httpx.get(f"{url}/api/trends/{path}", timeout=WAIT_S)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_trends_are_read_by_everybody_and_acknowledged_with_a_token(url, stage):
    (facts,) = get(url, "metrics")["series"]
    assert (facts["metric"], facts["image_type"], facts["n_exposures"], facts["unit"]) == (
        "mean_e", "bias", 60, "electron",
    )  # fmt: skip
    name = stage.camera.detectors[0].name
    view = get(url, f"series?metric=mean_e&detector={name}&first_day=20260910")
    (series,) = view["series"]
    assert (view["detector_name"], len(series["exposures"]), len(series["amps"])) == (name, 51, 16)
    (alarm,) = [one for one in view["alarms"] if one["kind"] == "step"]
    assert (alarm["onset_day"], alarm["detector_name"], alarm["state"]) == (20261011, name, "open")
    assert alarm["text"].startswith(f"{name}/{alarm['amp']}: mean_e (bias) jumped by +")
    drift = get(url, "map?metric=mean_e")
    assert len(drift["detectors"]) == 9
    assert drift["detectors"]["0"]["amps"][alarm["amp"]]["change"] == pytest.approx(1.0, abs=0.2)

    path = f"{url}/api/trends/alarms/{alarm['id']}/acknowledge"
    assert httpx.post(path, json={"reason": "board"}, timeout=WAIT_S).status_code == 401
    assert httpx.post(path, json={"reason": " "}, headers=TOKEN, timeout=WAIT_S).json()["error"]["field"] == "reason"
    done = httpx.post(path, json={"reason": "board replaced"}, headers=TOKEN, timeout=WAIT_S).json()
    assert (done["state"], done["acknowledged_by"]) == ("acknowledged", "ann (token)")
    assert httpx.post(path, json={"reason": "again"}, headers=TOKEN, timeout=WAIT_S).status_code == 409
    assert get(url, f"alarms/{alarm['id']}")["acknowledge_reason"] == "board replaced"
    assert alarm["id"] not in {one["id"] for one in get(url, "alarms?state=open")["alarms"]}
    assert get(url, "alarms/99999", 404)["error"]["code"] == "not_found"
    assert get(url, "series?metric=mean_e&detector=R99_S99", 404)["error"]["code"] == "not_found"
    assert get(url, "series?metric=nope&detector=0", 404)["error"]["code"] == "not_found"
    assert get(url, "map?metric=mean_e&first_day=12", 422)["error"]["field"] == "first_day"

    # A result that was stored a moment ago is in the next answer.
    fresh = make_result(2, 0, camera=stage.camera.name, detector_name=name, pipeline="bias", image_type="bias",
                        amps={"C00": {"mean_e": 0.25}}, metrics={})  # fmt: skip
    stage.results.put_result(fresh)
    (series,) = get(url, "series?metric=mean_e&detector=0&amp=C00")["series"]
    assert (series["exposures"][-1], series["amps"]["C00"][-1]) == (fresh.exposure, 0.25)
