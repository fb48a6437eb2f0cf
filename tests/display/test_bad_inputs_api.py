"""Exposures, rules and calibs that are bad, over HTTP."""

import httpx
import pytest
from pydantic import SecretStr

from tests.display.stage import DAY_OBS, WAIT_S

TOKEN = {"Authorization": "Bearer a-long-enough-token", "X-Rapid-User": "ann"}
FIRST = DAY_OBS * 100_000 + 1


@pytest.fixture
def url(stage, serve):
    return serve(stage.settings.model_copy(update={"token": SecretStr("a-long-enough-token")}))


def call(url, method, path, *, headers=TOKEN, **options):
    return httpx.request(method, f"{url}/api{path}", headers=headers, timeout=WAIT_S, **options)


def test_an_exposure_is_excluded_seen_and_included_again(url):
    said = {"exposures": [FIRST], "detectors": ["R22_S11"], "reason": "shutter stuck"}
    assert call(url, "POST", "/exposure-exclusions", headers={}, json=said).status_code == 401
    answer = call(url, "POST", "/exposure-exclusions", json=said)
    assert answer.status_code == 201, answer.text
    (made,) = answer.json()
    assert (made["exposure"], made["detector"], made["author"]) == (FIRST, 4, "ann (token)")
    assert call(url, "POST", "/exposure-exclusions", json=said).status_code == 409
    assert call(url, "GET", f"/exposure-exclusions?exposure={FIRST}", headers={}).json() == [made]
    undone = call(url, "DELETE", f"/exposure-exclusions/{made['id']}", params={"reason": "fine"}).json()
    assert (undone["ended_by"], undone["end_reason"]) == ("ann (token)", "fine")
    assert call(url, "GET", "/exposure-exclusions", headers={}).json() == []
    assert call(url, "DELETE", "/exposure-exclusions/99").status_code == 404


def test_a_rule_is_tried_made_and_ended(url):
    said = {"expression": "level > 5", "first_day": DAY_OBS}
    assert call(url, "POST", "/exclusion-rules/preview", headers={}, json=said).json() == {"n_found": 0, "found": []}
    wrong = call(url, "POST", "/exclusion-rules", json={**said, "expression": "level >", "reason": "x"})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "expression")
    made = call(url, "POST", "/exclusion-rules", json={**said, "reason": "light leak"}).json()
    assert made["n_found"] == 0
    number = made["rule"]["id"]
    assert [one["id"] for one in call(url, "GET", "/exclusion-rules", headers={}).json()] == [number]
    assert (
        call(url, "DELETE", f"/exclusion-rules/{number}", params={"undo": "true"}).json()["ended_by"] == "ann (token)"
    )
    assert call(url, "GET", "/exclusion-rules", headers={}).json() == []


def test_what_nothing_knows_is_told_as_such(url):
    answer = call(url, "GET", "/calibs/no-such-calib/affected", headers={})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "calib")
    answer = call(url, "GET", f"/exposures/{FIRST}/affected", headers={})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "exposure")
