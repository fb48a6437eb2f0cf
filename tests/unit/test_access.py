"""Who may change things over HTTP."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from rapid.access import Access, AccessSettings, BodyLimit, Principal, error_document, status_of
from rapid.errors import ConfigurationError, RapidError

TOKEN = "a-long-enough-token"
PROXY = {"proxy_header": "X-Forwarded-User", "trusted_proxies": "10.0.3.7, fd00::/8"}


def app_of(*, max_bytes: int = 1000, **settings: Any) -> FastAPI:
    access = Access(AccessSettings(**settings))
    app = FastAPI()
    app.add_middleware(BodyLimit, max_bytes=max_bytes)

    @app.post("/change")
    def change(who: Annotated[Principal, Depends(access.may_change)], body: Annotated[Any, Body()] = None) -> Any:
        return {"who": who.name, "how": who.how}

    @app.exception_handler(RapidError)
    async def refused(_: Request, error: RapidError) -> JSONResponse:
        return JSONResponse(error_document(error.code, error.message), status_code=status_of(error))

    app.include_router(access.routes())
    return app


async def ask(app: FastAPI, *, peer: str = "10.9.9.9", method: str = "POST", path: str = "/change", **given: Any):
    transport = httpx.ASGITransport(app, client=(peer, 4000))
    async with httpx.AsyncClient(transport=transport, base_url="http://rapid.example") as client:
        return await client.request(method, path, **given)


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | more


async def test_without_a_token_configured_every_change_is_refused():
    answer = await ask(app_of(), headers=bearer("anything"))
    assert answer.status_code == 403
    assert "RAPID_TOKEN" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), bearer(""), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), {"Authorization": TOKEN},
     {"Authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer"}, {"X-Forwarded-User": "eve"}],
)  # fmt: skip
async def test_a_missing_or_wrong_token_is_refused(headers):
    answer = await ask(app_of(token=TOKEN), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert TOKEN not in answer.text


async def test_the_right_token_may_change_and_says_who_it_is():
    app = app_of(token=TOKEN)
    assert (await ask(app, headers=bearer(TOKEN))).json() == {"who": "token", "how": "token"}
    named = await ask(app, headers=bearer(TOKEN, **{"X-Rapid-User": "night\tobserver\x1b"}))
    assert named.json()["who"] == "nightobserver (token)"


async def test_several_named_tokens_tell_their_holders_apart():
    app = app_of(token=f"# who has one\nscript {TOKEN}\n\nobserver another-long-token\n")
    assert (await ask(app, headers=bearer(TOKEN))).json()["who"] == "script"
    assert (await ask(app, headers=bearer("another-long-token"))).json()["who"] == "observer"
    assert (await ask(app, headers=bearer("script"))).status_code == 401


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("10.0.3.7", {"X-Forwarded-User": "ann"}, 200),
        ("fd00::17", {"X-Forwarded-User": "ann"}, 200),
        ("::ffff:10.0.3.7", {"X-Forwarded-User": "ann"}, 200),
        ("10.0.3.8", {"X-Forwarded-User": "ann"}, 401),
        ("10.0.3.8", {"X-Forwarded-User": "ann", "X-Forwarded-For": "10.0.3.7"}, 401),
        ("10.0.3.7", {}, 401),
        ("10.0.3.7", {"X-Forwarded-User": " "}, 401),
        ("10.0.3.7", [("X-Forwarded-User", "ann"), ("X-Forwarded-User", "eve")], 401),
        ("10.0.3.7", {"X-Forwarded-User": "ann", "Authorization": "Bearer of-the-proxy"}, 200),
        ("10.0.3.7", {"X-Forwarded-User": "ann", "Sec-Fetch-Site": "cross-site"}, 403),
        ("10.0.3.7", {"X-Forwarded-User": "ann", "Sec-Fetch-Site": "same-origin"}, 200),
        ("10.0.3.7", {"X-Forwarded-User": "ann", "Origin": "https://elsewhere.example"}, 403),
        ("10.0.3.7", {"X-Forwarded-User": "ann", "Origin": "http://rapid.example"}, 200),
        (
            "10.0.3.7",
            {"X-Forwarded-User": "ann", "Origin": "https://summit.example", "X-Forwarded-Host": "summit.example"},
            200,
        ),
    ],
)
async def test_a_proxys_word_counts_only_from_the_proxy_and_for_our_own_pages(peer, headers, status):
    answer = await ask(app_of(**PROXY), peer=peer, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json() == {"who": "ann", "how": "proxy"}


async def test_the_caller_can_ask_what_it_may_do():
    app = app_of(token=TOKEN)
    anonymous = await ask(app, method="GET", path="/api/access")
    assert anonymous.json() == {"principal": "anonymous", "may_change": False, "ways": ["token"]}
    known = await ask(app, method="GET", path="/api/access", headers=bearer(TOKEN))
    assert known.json() == {"principal": "token", "may_change": True, "ways": ["token"]}
    assert (await ask(app, method="GET", path="/api/access", headers=bearer("wrong-token"))).status_code == 401


async def test_no_answer_invites_other_origins():
    for method in ("POST", "OPTIONS"):
        headers = bearer(TOKEN, Origin="https://elsewhere.example", **{"Access-Control-Request-Method": "POST"})
        answer = await ask(app_of(token=TOKEN), method=method, headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not():
    app = app_of(token=TOKEN)
    headers = bearer(TOKEN, **{"Content-Type": "application/json"})
    small = await ask(app, headers=headers, content=b'"' + b"x" * 900 + b'"')
    assert small.status_code == 200
    declared = await ask(app, headers=headers, content=b'"' + b"x" * 1100 + b'"')
    assert declared.status_code == 413

    async def pieces():
        for _ in range(20):
            yield b"x" * 100

    streamed = await ask(app, headers=headers, content=pieces())
    assert streamed.status_code == 413
    assert "1000 bytes" in streamed.text


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"token": "short"}, "token"),
        ({"token": " \n"}, "token"),
        ({"token": "one two three-long-enough"}, "token"),
        ({"proxy_header": "X User", "trusted_proxies": "10.0.0.1"}, "proxy_header"),
        ({"proxy_header": "X-User"}, "trusted_proxies"),
        ({"proxy_header": "X-User", "trusted_proxies": "10.0.0"}, "trusted_proxies"),
    ],
)
def test_a_setting_that_would_leave_the_door_open_is_refused(settings, field):
    with pytest.raises(ConfigurationError) as refused:
        Access(AccessSettings(**settings))
    assert refused.value.field == field
