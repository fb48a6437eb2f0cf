"""The control state over HTTP, by the display as it is served."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rapid.display.app import create_app
from rapid.display.settings import DisplaySettings

TOKEN = "a-long-enough-token"
BEARER = {"Authorization": f"Bearer {TOKEN}", "X-Rapid-User": "ann"}
JSON = {"Content-Type": "application/json"}


def app_on(url: str, folder: Path, **given: Any) -> FastAPI:
    facts = {"camera": "LSSTCam", "redis_url": url, "token": SecretStr(TOKEN)} | given
    return create_app(
        DisplaySettings(results_url=str(folder / "results.sqlite"), products_url=str(folder / "products"), **facts)
    )


@pytest.fixture
async def api(valkey, client: redis.Redis, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = app_on(valkey.url, tmp_path)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://rapid") as api:
        yield api


async def test_anybody_may_read_the_state_and_its_version(api):
    answer = await api.get("/api/control")
    assert answer.json()["state"]["pattern"] == "all"
    assert answer.headers["ETag"] == '"0"'
    assert (await api.get("/api/control/history")).json() == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/api/control", {"pattern": "minimal"}),
        ("POST", "/api/control/patterns/mine", {"expression": "R22"}),
        ("DELETE", "/api/control/patterns/mine", None),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong-token"}, {"Authorization": "Bearer"}])
async def test_nobody_changes_anything_without_the_token(api, store, method, path, body, headers):
    answer = await api.request(method, path, json=body, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "unauthorized"
    assert store.read().version == 0


async def test_without_a_token_configured_changes_are_switched_off(valkey, client, tmp_path, store):
    app = app_on(valkey.url, tmp_path, token=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rapid") as api:
        answer = await api.patch("/api/control", json={"pattern": "minimal"}, headers=BEARER)
    assert answer.status_code == 403
    assert "RAPID_TOKEN" in answer.json()["error"]["message"]
    assert store.read().version == 0


async def test_a_change_is_answered_with_the_state_as_it_now_is_and_audited(api):
    patch = {"pattern": "ccd_checkerboard", "visit_mode": "ALTERNATING_IN_TWOS", "timeouts": {"gather_s": 8}}
    answer = await api.patch("/api/control", params={"reason": "clouds"}, json=patch, headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    assert answer.json()["state"]["visit_mode"] == "alternating_by_twos"
    assert (await api.get("/api/control")).json() == answer.json()
    (entry,) = (await api.get("/api/control/history")).json()
    assert (entry["changed_by"], entry["door"], entry["reason"]) == ("ann (token)", "http", "clouds")
    assert entry["after"]["timeouts.gather_s"] == 8


async def test_an_etag_protects_what_one_has_not_seen(api):
    patch = {"pattern": "minimal"}
    await api.patch("/api/control", json=patch, headers=BEARER | {"If-Match": '"0"'})
    for tag in ('"0"', 'W/"0"', "0"):
        late = await api.patch("/api/control", json={"pattern": "all"}, headers=BEARER | {"If-Match": tag})
        assert late.status_code == 412
        assert late.json()["error"]["code"] == "version_changed"
    for tag in ("*", '"2"'):
        now = await api.patch("/api/control", json={"pattern": "all"}, headers=BEARER | {"If-Match": tag})
        assert now.status_code == 200
    odd = await api.patch("/api/control", json=patch, headers=BEARER | {"If-Match": "newest"})
    assert (odd.status_code, odd.json()["error"]["field"]) == (422, "If-Match")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"pattern": "R99"}', 422, "pattern"),
        (b'{"timeouts": {"gather_s": -1}}', 422, "timeouts.gather_s"),
        (b'{"timeouts": {"gather_s": NaN}}', 422, "timeouts.gather_s"),
        (b'{"timeouts": {"gather_s": 1e999}}', 422, "timeouts.gather_s"),
        (b'{"pipelines": {"science": "../../etc/passwd"}}', 422, "pipelines.science"),
        (b'{"witness_detector": 9999999999999999999999}', 422, "witness_detector"),
        (b'{"guaranteed": [1, 2]}', 422, "guaranteed"),
        (b'{"patterns": {"../x": "R22"}}', 422, "patterns.../x"),
        (b'{"no_such_field": 1}', 422, "no_such_field"),
        (b'{"\\ud800": 1}', 422, "change"),
        (b"[1, 2]", 422, "body"),
        (b"null", 422, "body"),
        (b"", 422, "body"),
        (b'{"pattern": ', 422, None),
        (b'{"a":' * 4000 + b"1" + b"}" * 4000, 400, None),
        (b'{"pattern": "' + b"(" * 100_000 + b'"}', 422, "pattern"),
        (b'{"pattern": "' + b"x" * 2_000_000 + b'"}', 413, None),
        (b"\xff\xfe\x00", 400, None),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_naming_the_field_and_harms_nothing(api, store, body, status, field):
    answer = await api.patch("/api/control", content=body, headers=BEARER | JSON)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"]
    assert error["message"]
    assert field in {None, error["field"]}
    assert len(answer.content) < 5000
    assert store.read().version == 0


async def test_refusals_are_counted_where_the_board_is_seen(api):
    for _ in range(3):
        await api.patch("/api/control", json={"pattern": "R99"}, headers=BEARER)
    assert (await api.get("/api/status")).json()["board"]["counters"]["control_refused"] == 3


async def test_patterns_are_saved_previewed_used_and_forgotten(api):
    saved = await api.post("/api/control/patterns/mine", json={"expression": "R22_S11 | 90"}, headers=BEARER)
    assert saved.json()["state"]["patterns"] == {"mine": "R22_S11 | 90"}
    preview = (await api.get("/api/patterns", params={"expression": "mine"})).json()
    assert (preview["detectors"], preview["phases"]) == ([90, 94], 1)
    listed = {facts["name"]: facts for facts in (await api.get("/api/patterns")).json()}
    assert listed["mine"]["saved"]
    assert listed["minimal"]["sizes"] == [45]
    await api.patch("/api/control", json={"pattern": "mine"}, headers=BEARER)
    used = await api.delete("/api/control/patterns/mine", headers=BEARER)
    assert (used.status_code, used.json()["error"]["field"]) == (409, "pattern")
    await api.patch("/api/control", json={"pattern": "all"}, headers=BEARER)
    assert (await api.delete("/api/control/patterns/mine", headers=BEARER)).json()["state"]["patterns"] == {}
    assert (await api.delete("/api/control/patterns/mine", headers=BEARER)).status_code == 404


@pytest.mark.parametrize("name", ["all", "ALL", "r22", "R22_S11", "9lives", "a-b", "x" * 65, "..", "a%00", "é"])
async def test_a_name_that_is_taken_or_none_is_refused(api, store, name):
    answer = await api.post(f"/api/control/patterns/{name}", json={"expression": "R22"}, headers=BEARER)
    assert answer.status_code in {404, 405, 422}
    assert store.read().version == 0


@pytest.mark.parametrize(("phase", "n_detectors"), [(0, 96), (1, 93), (2, 96), (1_000_000, 96)])
async def test_a_preview_shows_the_detectors_of_a_phase(api, phase, n_detectors):
    answer = await api.get("/api/patterns", params={"expression": "CCD-checkerboard", "phase": phase})
    assert len(answer.json()["detectors"]) == n_detectors
    assert answer.json()["phases"] == 2


@pytest.mark.parametrize("expression", ["", "R99", "all &", "all - all", "(" * 4000, "\x00", "１"])
async def test_a_preview_of_nonsense_says_what_is_wrong(api, expression):
    answer = await api.get("/api/patterns", params={"expression": expression})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "expression"


async def test_without_the_board_every_answer_is_a_clear_503(tmp_path):
    app = app_on("redis://127.0.0.1:1", tmp_path)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rapid", timeout=60) as api:
        for method, path in (("GET", "/api/control"), ("PATCH", "/api/control"), ("GET", "/api/patterns")):
            answer = await api.request(
                method, path, json={"pattern": "all"} if method == "PATCH" else None, headers=BEARER
            )
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "store_failed"


# Fuzzing from the OpenAPI document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_whatever_is_sent_is_answered_as_the_document_says(valkey, client, tmp_path):
    schema = schemathesis.openapi.from_asgi("/openapi.json", app_on(valkey.url, tmp_path))
    fuzzed = set()
    # Of requests only the collection: the others wait for what is asked, as long as they are told to.
    paths = "^/api/((control|patterns|access|exclusions)|requests$)"
    for found in schema.include(path_regex=paths).get_all_operations():
        operation = found.ok()
        strategy = operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE)

        @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=strategy)
        def answers(case: schemathesis.Case) -> None:
            case.headers = {**(case.headers or {}), **BEARER}
            case.validate_response(case.call(), checks=CHECKS)

        answers()
        fuzzed.add(f"{operation.method.upper()} {operation.path}")
    assert len(fuzzed) >= 12
    assert {"POST /api/requests", "POST /api/exclusions"} <= fuzzed
