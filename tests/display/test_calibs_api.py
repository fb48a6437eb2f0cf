"""Calibs over HTTP: listed with what failed, certified by who has a token and a reason."""

from datetime import UTC, datetime

import httpx
import pytest
from pydantic import SecretStr

from rapid.results.models import CalibRecord, CalibState
from tests.display.stage import WAIT_S

TOKEN = {"Authorization": "Bearer a-long-enough-token", "X-Rapid-User": "ann"}


@pytest.fixture
def url(stage, serve):
    for name, changes in (
        ("fine", {"outcome": "pass"}),
        ("bad", {"state": CalibState.REJECTED, "outcome": "fail", "failures": ["C00 NOISE"]}),
    ):
        record = CalibRecord(
            calib_id=name, camera=stage.camera.name, detector=4, kind="bias", valid_from=datetime(2026, 11, 20, 20),  # noqa: DTZ001 - TAI
            version=1, path=f"{name}.fits", sha256=name, created_at=datetime.now(UTC), **changes,
        )  # fmt: skip
        stage.results.add_calib(lambda version, made=record: made.model_copy(update={"version": version}))
    return serve(stage.settings.model_copy(update={"token": SecretStr("a-long-enough-token")}))


def call(url, method, path, *, headers=TOKEN, **options):
    return httpx.request(method, f"{url}/api{path}", headers=headers, timeout=WAIT_S, **options)


def test_a_refused_calib_is_overridden_by_who_may_and_says_why(url):
    listed = {one["calib_id"]: one for one in call(url, "GET", "/calibs", headers={}).json()}
    assert (listed["bad"]["state"], listed["bad"]["failures"]) == ("rejected", ["C00 NOISE"])
    assert [one["calib_id"] for one in call(url, "GET", "/calibs?state=certified", headers={}).json()] == ["fine"]
    wanted = {"state": "certified"}
    assert call(url, "POST", "/calibs/bad/state", headers={}, json=wanted).status_code == 401
    refused = call(url, "POST", "/calibs/bad/state", json=wanted)
    assert refused.status_code == 422
    assert "C00 NOISE" in refused.json()["error"]["message"]
    silent = call(url, "POST", "/calibs/bad/state", json={**wanted, "override": True})
    assert (silent.status_code, silent.json()["error"]["field"]) == (422, "reason")
    done = call(url, "POST", "/calibs/bad/state", json={**wanted, "override": True, "reason": "known"})
    assert done.status_code == 200, done.text
    assert (done.json()["state"], done.json()["is_overridden"]) == ("certified", True)
    assert [one["state"] for one in done.json()["history"]] == ["rejected", "certified"]
    assert done.json()["history"][1]["author"] == "ann (token)"


def test_a_withdrawn_calib_is_chosen_no_more_and_was_before(url):
    answer = call(url, "POST", "/calibs/fine/state", json={"state": "withdrawn", "reason": "light leak"})
    assert answer.status_code == 200, answer.text
    assert call(url, "GET", "/calibs?state=certified", headers={}).json() == []
    before = answer.json()["history"][0]["at"]
    then = call(url, "GET", "/calibs", headers={}, params={"as_of": before}).json()
    assert [one["calib_id"] for one in then] == ["fine"]


def test_what_is_not_there_is_not_found(url):
    assert call(url, "GET", "/calibs/nothing", headers={}).status_code == 404
    assert call(url, "POST", "/calibs/nothing/verification").status_code == 404
    assert call(url, "GET", "/verification/2026112099999", headers={}).status_code == 404


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/calibs?kind=foo", "kind"),
        ("/calibs?detector=77", "detector"),
        ("/calibs?physical_filter=zz", "physical_filter"),
        ("/calibrations/masters?kind=foo", "kind"),
        ("/calibrations/nights/20261399", "day_obs"),
        ("/trends/alarms?detector=77", "detector"),
        ("/trends/map?metric=stdev_e&first_day=20261201&last_day=20261101", "first_day"),
        ("/trends/series?metric=stdev_e&detector=4&last_day=20261399", "last_day"),
        ("/exclusions?detector=77", "detector"),
        ("/exposure-exclusions?day_obs=20261399", "day_obs"),
        ("/exposure-exclusions?exposure=5", "exposure"),
    ],
)
def test_a_question_about_what_cannot_be_is_refused_and_names_the_field(url, path, field):
    answer = call(url, "GET", path, headers={})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("series?metric=foo&detector=4", "metric"),
        ("series?metric=foo&detector=77", "detector"),
        ("map?metric=foo", "metric"),
    ],
)
def test_a_trend_that_there_is_none_of_is_not_found_and_names_the_field(url, path, field):
    answer = call(url, "GET", f"/trends/{path}", headers={})
    assert (answer.status_code, answer.json()["error"]["field"]) == (404, field)


def test_kinds_that_are_known_and_not_there_yet_are_an_empty_list(url):
    for path in ("/calibs?kind=crosstalk", "/calibrations/masters?kind=ptc", "/calibs?detector=0"):
        answer = call(url, "GET", path, headers={})
        assert (answer.status_code, answer.json()) == (200, []), path
