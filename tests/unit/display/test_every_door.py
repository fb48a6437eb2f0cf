"""What holds of every HTTP route of the display, whichever they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from rapid.display.app import create_app
from rapid.display.settings import DisplaySettings

TOKEN = "a-token-of-some-length"
CHANGES_NOTHING = {("post", "/api/exclusion-rules/preview")}
"""Routes with a body that only look."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("display")
    return create_app(
        DisplaySettings(
            camera="LSSTCam",
            redis_url="redis://127.0.0.1:1",
            results_url=str(folder / "results.sqlite"),
            products_url=str(folder / "products"),
            token=SecretStr(TOKEN),
        )
    )


def operations(app: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def changes(app: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return [one for one in operations(app) if one[0] != "get" and one[:2] not in CHANGES_NOTHING]


def test_every_whole_number_that_a_route_takes_has_bounds_on_both_sides(app: Any) -> None:
    unbounded = []
    for method, path, operation in operations(app):
        for parameter in operation.get("parameters", []):
            for kind in parameter["schema"].get("anyOf", [parameter["schema"]]):
                has_least = {"minimum", "exclusiveMinimum"} & kind.keys()
                has_most = {"maximum", "exclusiveMaximum"} & kind.keys()
                if kind.get("type") == "integer" and not (has_least and has_most):
                    unbounded.append(f"{method} {path} {parameter['name']}")
    assert unbounded == []


def test_every_change_says_that_it_needs_a_token_and_bounds_its_body(app: Any) -> None:
    found = changes(app)
    assert len(found) > 15
    assert [f"{method} {path}" for method, path, operation in found if "security" not in operation] == []
    assert [f"{m} {p}" for m, p, one in found if not {"401", "403", "413", "422"} <= one["responses"].keys()] == []


async def test_every_change_is_refused_without_a_token(app: Any) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rapid", timeout=60) as api:
        for method, path, operation in changes(app):
            place = path
            for parameter in operation.get("parameters", []):
                place = place.replace("{" + parameter["name"] + "}", "1")
            answer = await api.request(method.upper(), place, json={})
            assert answer.status_code in {401, 422}, (method, path, answer.text)
            if answer.status_code == 422:  # the path itself is refused before anything else is looked at
                assert answer.json()["error"]["field"], (method, path)


@pytest.mark.parametrize("exposure_id", [2**63, 10**30, 0, -1])
async def test_an_exposure_that_cannot_be_is_refused_by_its_name(app: Any, exposure_id: int) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rapid", timeout=60) as api:
        answer = await api.get(f"/api/exposures/{exposure_id}")
    assert answer.status_code == 422
    assert "exposure_id" in answer.json()["error"]["field"]


async def test_a_detector_that_is_not_there_is_refused_by_the_name_it_has_in_the_body(app: Any) -> None:
    body = {"exposures": [2026112000001], "detectors": [999], "reason": "light leak"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rapid", timeout=60) as api:
        answer = await api.post("/api/exposure-exclusions", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "detectors"
