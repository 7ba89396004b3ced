"""Who gets in: the API key in Basic, its scope, its limit, and the shape of every refusal."""

import base64
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response

from sandbox.stackone import Project, StackOneConfig, create_stackone
from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def assert_documented(answer: httpx2.Response, status: int) -> None:
    body = answer.json()
    assert answer.status_code == body["statusCode"] == status
    assert isinstance(body["message"], str)
    assert body["timestamp"] == "2026-11-20T09:00:00.000Z"


async def test_the_key_with_its_colon_opens(look: Look) -> None:
    key = look.project.config.api_key
    answer = await look.browser.get("/accounts", headers=basic(f"{key}:"))
    assert answer.status_code == 200
    assert answer.json() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("demo-api-key-of-the-tests"),
        basic("demo-api-key-of-the-tests:password"),
        basic("another:"),
        basic(":"),
        {"authorization": "Bearer demo-api-key-of-the-tests"},
        {"authorization": "Basic not*base64"},
        {"authorization": "Basic"},
        {"authorization": "Basic ÿ".encode("latin-1")},
    ],
    ids=["none", "no colon", "a password", "wrong key", "empty", "bearer", "not base64", "bare", "not ascii"],
)
@pytest.mark.parametrize("path", ["/accounts", "/accounts/x", "/v2/accounts", "/accounts/x/meta"])
async def test_anything_else_is_401(look: Look, headers: dict[str, Any], path: str) -> None:
    assert_documented(await look.browser.get(path, headers=headers), 401)


async def test_base64_with_junk_in_it_is_401(look: Look) -> None:
    good = basic(f"{look.project.config.api_key}:")["authorization"]
    answer = await look.browser.get("/accounts", headers={"authorization": good[:10] + "*" + good[10:]})
    assert_documented(answer, 401)


async def test_sessions_need_the_key_too(look: Look) -> None:
    for path in ("/connect_sessions", "/connect_sessions/authenticate"):
        assert_documented(await look.browser.post(path, json={}), 401)


async def test_a_key_without_scope_is_403_and_gets_it_back(look: Look) -> None:
    await look.switch.post("/_sandbox/api-key", json={"lacks_scope": True})
    assert_documented(await look.api.get("/accounts"), 403)
    assert_documented(await look.browser.get("/accounts"), 401)
    await look.switch.post("/_sandbox/api-key", json={"lacks_scope": False})
    assert (await look.api.get("/accounts")).status_code == 200


async def test_a_replaced_key_is_401(look: Look) -> None:
    await look.switch.post("/_sandbox/api-key", json={"key": "demo-new"})
    assert_documented(await look.api.get("/accounts"), 401)
    assert (await look.browser.get("/accounts", headers=basic("demo-new:"))).status_code == 200


async def test_a_client_without_a_name_is_403(look: Look) -> None:
    request = look.api.build_request("GET", "/accounts")
    del request.headers["user-agent"]
    assert_documented(await look.api.send(request, auth=httpx2.BasicAuth(look.project.config.api_key, "")), 403)


async def test_the_limit_is_off_until_switched_on(look: Look) -> None:
    for _ in range(5):
        assert (await look.api.get("/accounts")).status_code == 200
    await look.switch.post("/_sandbox/limits", json={"per_minute": 2})
    look.clock.forward(20)
    answers = [await look.api.get("/accounts") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "40"
    look.clock.forward(40)
    assert (await look.api.get("/accounts")).status_code == 200


async def test_every_error_has_the_documented_shape(look: Look) -> None:
    assert_documented(await look.api.get("/nowhere"), 404)
    assert_documented(await look.api.put("/accounts"), 405)
    assert_documented(await look.api.get("/accounts?page=x"), 400)
    assert_documented(await look.api.post("/connect_sessions", content=b"{"), 400)
    assert_documented(await look.browser.get("/hub/settings"), 401)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 20_000,
        b'{"origin_owner_id":"o","origin_owner_name":"n","expires_in":NaN}',
        b'{"origin_owner_id":"o","origin_owner_name":"\\ud800"}',
    ],
)
async def test_unreadable_bodies_are_400(look: Look, body: Any) -> None:
    assert_documented(await look.api.post("/connect_sessions", content=body), 400)


async def test_a_huge_body_is_413(look: Look) -> None:
    assert_documented(await look.api.post("/connect_sessions", content=b" " * 1_100_000), 413)


async def test_a_bug_in_the_sandbox_is_a_documented_500(look: Look) -> None:
    app = create_stackone(Project(StackOneConfig(api_key="k", webhook_secret="w", sandbox_key="s"), clock=look.clock))

    @app.get("/broken")
    async def broken(_request: Request) -> Response:
        raise RuntimeError("secret detail")

    over = httpx2.ASGITransport(app, raise_app_exceptions=False)
    answer = await httpx2.AsyncClient(transport=over, base_url="http://x").get("/broken")
    assert_documented(answer, 500)
    assert "secret" not in answer.text


@pytest.mark.parametrize("key", [None, "", "wrong", "demo-sandbox-kéy"])
async def test_switches_need_their_own_key(look: Look, key: str | None) -> None:
    headers = {} if key is None else {b"x-sandbox-key": key.encode()}
    for method, path in (("GET", "/_sandbox/requests"), ("POST", "/_sandbox/reset"), ("POST", "/_sandbox/faults")):
        assert (await look.api.request(method, path, headers=headers)).status_code == 401
    assert (await look.switch.get("/_sandbox/requests")).status_code == 200
