"""Switching off and on over HTTP, and what is told of it."""

import json
from datetime import datetime

import httpx
import pytest
from pydantic import SecretStr

from tests.display.stage import BEGIN, DAY_OBS, WAIT_S
from tests.display.test_api import listen

TOKEN = {"Authorization": "Bearer a-long-enough-token", "X-Rapid-User": "ann"}


@pytest.fixture
def url(stage, serve):
    return serve(stage.settings.model_copy(update={"token": SecretStr("a-long-enough-token")}))


def call(url, method, path="", *, headers=TOKEN, **options):
    return httpx.request(method, f"{url}/api/exclusions{path}", headers=headers, timeout=WAIT_S, **options)


def exclude(url, *targets, **facts):
    answer = call(url, "POST", json={"targets": list(targets), "reason": "noisy", **facts})
    assert answer.status_code == 201, answer.text
    return answer.json()["exclusions"]


def listed(url, query=""):
    return call(url, "GET", query, headers={}).json()["exclusions"]


def test_what_is_switched_off_can_be_seen_by_everybody(url):
    made = exclude(url, "R22_S11", 5, "R22_S00/C01", reason="  board unplugged ")
    assert [(one["detector"], one["amp"]) for one in made] == [(4, None), (5, None), (0, "C01")]
    assert {(one["author"], one["reason"], one["is_active"]) for one in made} == {
        ("ann (token)", "board unplugged", True)
    }
    assert sorted(one["id"] for one in listed(url)) == sorted(one["id"] for one in made)
    one = call(url, "GET", f"/{made[0]['id']}", headers={}).json()
    assert one == made[0]


def test_an_answer_says_where_the_exclusion_is(url):
    answer = call(url, "POST", json={"targets": [4], "reason": "noisy"})
    assert call(url, "GET", answer.headers["location"].removeprefix("/api/exclusions")).json()["detector"] == 4


def test_switched_on_again_it_stays_in_the_history(url):
    (made,) = exclude(url, 4)
    ended = call(url, "DELETE", f"/{made['id']}", params={"reason": "fixed"}).json()
    assert (ended["ended_by"], ended["end_reason"], ended["is_active"]) == ("ann (token)", "fixed", False)
    assert listed(url) == []
    assert [one["id"] for one in listed(url, "?history=true")] == [made["id"]]
    assert [one["id"] for one in listed(url, "?history=true&detector=5")] == []


def test_a_mistake_is_undone_as_if_it_had_never_been(url):
    (made,) = exclude(url, 4, valid_from="20260101")
    undone = call(url, "DELETE", f"/{made['id']}", params={"undo": "true"}).json()
    assert undone["valid_to"] == undone["valid_from"]
    exclude(url, 4, valid_from="20260101")


def test_it_holds_from_the_next_exposure_on(stage, url):
    with listen(url) as viewer:
        stage.post(1)
        viewer.next("exposures")
        (made,) = exclude(url, 4)
    begin = stage.info(1)["begin"]
    late = datetime.fromisoformat(made["valid_from"]).replace(tzinfo=None) - datetime.fromisoformat(begin)
    assert -37 < late.total_seconds() < -36, "TAI is 37 s ahead of UTC"
    assert BEGIN.year == DAY_OBS // 10_000


def test_a_plan_is_not_active_yet(url):
    (made,) = exclude(url, 4, valid_from="2090-01-01T00:00", valid_to="20900101")
    assert (made["valid_from"], made["valid_to"]) == ("2090-01-01T00:00:00Z", "2090-01-02T12:00:00Z")
    assert [one["is_active"] for one in listed(url)] == [False]


def test_viewers_are_told(url):
    with listen(url) as viewer:
        viewer.next("heartbeat")
        exclude(url, "R22_S11", "R22_S12/C01")
        assert viewer.next("exclusions")[1] == {"what": "excluded", "names": ["R22_S11", "R22_S12/C01"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({"targets": ["R99_S99"], "reason": "x"}, "targets", id="no such detector"),
        pytest.param({"targets": ["R22_S11/C99"], "reason": "x"}, "targets", id="no such amp"),
        pytest.param({"targets": [], "reason": "x"}, "targets", id="nothing named"),
        pytest.param({"targets": [4] * 301, "reason": "x"}, "targets", id="too much named"),
        pytest.param({"targets": [4]}, "reason", id="no reason"),
        pytest.param({"targets": [4], "reason": "  "}, "reason", id="blank reason"),
        pytest.param({"targets": [4], "reason": "x" * 501}, "reason", id="endless reason"),
        pytest.param({"targets": [4], "reason": "x\u0000y"}, "reason", id="control character"),
        pytest.param({"targets": [4], "reason": "x", "valid_from": "soon"}, "valid_from", id="no time"),
        pytest.param(
            {"targets": [4], "reason": "x", "valid_from": "20261120", "valid_to": "20261118"},
            "valid_to",
            id="backwards",
        ),
        pytest.param({"targets": [4], "reason": "x", "author": "eve"}, "author", id="in another's name"),
        pytest.param([], "body", id="no object"),
    ],
)
def test_a_bad_request_names_the_field_and_changes_nothing(url, body, field):
    answer = call(url, "POST", content=json.dumps(body), headers={**TOKEN, "Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"].split(".")[0] == field
    assert listed(url, "?history=true") == []


def test_conflicts_tell_what_the_other_did(url):
    (made,) = exclude(url, 4)
    again = call(url, "POST", json={"targets": ["R22_S11"], "reason": "me too"})
    assert again.status_code == 409
    assert "R22_S11 is excluded already: noisy (ann" in again.json()["error"]["message"]
    assert call(url, "DELETE", f"/{made['id']}").status_code == 200
    second = call(url, "DELETE", f"/{made['id']}")
    assert (second.status_code, second.json()["error"]["code"]) == (409, "ended_already")


@pytest.mark.parametrize("path", ["/99", "/0", "/x", "/99999999999999999999"])
def test_there_is_no_such_exclusion(url, path):
    for method in ("GET", "DELETE"):
        answer = call(url, method, path)
        assert answer.status_code in {404, 422}
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong-token-wrong"}], ids=["none", "wrong"])
def test_without_the_token_nothing_changes(url, headers):
    (made,) = exclude(url, 4)
    assert call(url, "POST", json={"targets": [5], "reason": "x"}, headers=headers).status_code == 401
    assert call(url, "DELETE", f"/{made['id']}", headers=headers).status_code == 401
    assert [one["detector"] for one in listed(url)] == [4]


def test_where_no_token_is_configured_nothing_can_be_changed(stage, serve):
    url = serve(stage.settings)
    assert call(url, "POST", json={"targets": [5], "reason": "x"}).status_code == 403
    assert listed(url) == []
