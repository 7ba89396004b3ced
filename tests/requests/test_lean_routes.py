"""Routes answer what FastAPI's own handler would: to what is usual, to what is odd, and to what is wrong."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.direct import Direct, Limited, Table
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

MINT, LIST = "/v1/connect-sessions", "/v1/linked-accounts"
JSON = "application/json"


class AsTraced:
    """Has routes leave a request to FastAPI's own handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["fastapi.telemetry"] = "anything"
        await self._app(scope, receive, send)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, webhooks=False, sync={"enabled": False}) as opened:
        yield opened


def through(web: ASGIApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(web), base_url="http://broker.example")


def cases(world: World, account_id: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    user, service = world.as_user("alice"), world.as_service()
    for query in (
        "",
        "limit=1",
        "limit=1&provider=bamboohr&provider=workday",
        "status=active",
        "limit=0",
        "limit=1&limit=2",
        "limit=x&cursor=%21&nothing=1",
        "nothing=",
        "provider=" + "x" * 400,
        "limit=2&" + "&".join(f"provider=p{number}" for number in range(60)),
    ):
        yield "GET", f"{LIST}?{query}", {"headers": user}
        yield "GET", f"/v1/owners/acme/linked-accounts?{query}", {"headers": service}
        yield "GET", f"{LIST}?{query}", {}
        yield "GET", f"/v1/events?after=0&{query}", {"headers": service}
    for name in (account_id, "none", "%00", "x" * 256, "a%2Fb"):
        yield "GET", f"{LIST}/{name}", {"headers": user}
        yield "GET", f"/v1/accounts/{name}", {"headers": service}
        yield "GET", f"/v1/accounts/{name}", {"headers": user}
        yield "POST", f"{LIST}/{name}/confirm", {"headers": user}
    typed = {**user, "content-type": JSON}
    for headers, body in (
        (user, b""),
        (typed, b""),
        (typed, b"{}"),
        (typed, b" {} "),
        (typed, b"null"),
        (typed, b"[]"),
        (typed, b'{"provider": 7}'),
        (typed, b'{"provider": "bamboohr", "categories": ["hris", "made_up"]}'),
        (typed, b'{"provider": "bamboohr", "account_id": null}'),
        (typed, b'{"origin_owner_id": "evil"}'),
        (typed, b'{"label": NaN}'),
        (typed, b'{"label": "\\ud800"}'),
        (typed, b'{"provider": '),
        (typed, b"\xff\xfe"),
        (typed, b"[" * 20_000),
        (typed, b"9" * 5000),
        (typed, b'{"label": "' + b"x" * 70_000 + b'"}'),
        ({**user, "content-type": "Application/JSON; charset=utf-8"}, b"{}"),
        ({**user, "content-type": "application/vnd.api+json"}, b"{}"),
        ({**user, "content-type": "text/plain"}, b"{}"),
        ({**user, "content-type": ""}, b"{}"),
        ({**user, "content-type": "application/json;"}, b"{}"),
        ({**user, "content-type": "application/jsonp"}, b"{}"),
        (user, b"{}"),
        ({"content-type": JSON}, b"{}"),
        ({**service, "content-type": JSON}, b"{}"),
    ):
        yield "POST", MINT, {"headers": headers, "content": body}
        yield "POST", f"{MINT}/cs_none/poll", {"headers": headers, "content": body}
        yield "POST", "/v1/policy/explain", {"headers": {**headers, **service}, "content": body}
    for method in ("PUT", "HEAD", "OPTIONS"):
        yield method, LIST, {"headers": user}


def _told(answer: httpx2.Response) -> tuple[Any, ...]:
    """Return what two answers to one request have in common."""
    text = answer.text
    if text and answer.headers.get("content-type", "").endswith("json"):
        told = json.loads(text)
        for name in ("request_id", "id", "token", "expires_at", "verified_at"):
            if isinstance(told, dict):
                told.pop(name, None)
        text = json.dumps(told)
    names = [name for name in answer.headers if name not in {"x-request-id", "content-length"}]
    return answer.status_code, text, [(name, answer.headers[name]) for name in names if name != "retry-after"]


async def test_every_answer_is_that_of_the_framework(world: World) -> None:
    account_id = await world.link("alice")
    confirmed = await world.broker.post(f"{LIST}/{account_id}/confirm", headers=world.as_user())
    assert confirmed.status_code == 200
    statuses = set()
    async with through(world.web) as lean, through(AsTraced(world.web)) as usual:
        for method, path, rest in cases(world, account_id):
            answers = [_told(await client.request(method, path, **rest)) for client in (lean, usual)]
            assert answers[0] == answers[1], (method, path, rest)
            statuses.add(answers[0][0])
    assert statuses >= {200, 201, 400, 401, 404, 405, 413, 422}


class Told(BaseModel):
    """An answer."""

    a: int


async def test_a_result_of_another_kind_than_declared_is_a_mistake_of_ours() -> None:
    web = FastAPI()

    @web.get("/odd")
    async def odd() -> Told:
        result: Any = {"a": 1}
        return result  # type: ignore[no-any-return]

    routes = [Limited(route, 0) for route in web.routes if isinstance(route, APIRoute)]
    web.add_middleware(Direct, table=Table(routes), on_errors=web.exception_handlers)
    async with through(web) as client:
        with pytest.raises(TypeError, match="odd returned dict instead of Told"):
            await client.get("/odd")


def _table(*paths: tuple[str, str, bool]) -> Table:
    web = FastAPI()
    for number, (method, path, is_plain) in enumerate(paths):

        async def answer() -> Told:
            return Told(a=0)

        web.add_api_route(path, answer, methods=[method], response_model=Told if is_plain else None, name=str(number))
    return Table([Limited(route, 0) for route in web.routes if isinstance(route, APIRoute)])


@pytest.mark.parametrize(
    ("paths", "asked", "found"),
    [
        ([("GET", "/a", True)], ("GET", "/a"), "0"),
        ([("GET", "/a", True)], ("POST", "/a"), None),
        ([("GET", "/a", True)], ("GET", "/a/"), None),
        # Routes are tried in their order: whichever fits first answers, and if that is the framework's, the framework.
        ([("GET", "/{x}", True), ("GET", "/a", True)], ("GET", "/a"), "0"),
        ([("GET", "/a", True), ("GET", "/{x}", True)], ("GET", "/a"), "0"),
        ([("GET", "/a", False), ("GET", "/{x}", True)], ("GET", "/a"), None),
        ([("GET", "/{x}", False), ("GET", "/a", True)], ("GET", "/a"), None),
        ([("GET", "/{x}", False), ("GET", "/{y}", True)], ("GET", "/a"), None),
        ([("GET", "/{x}", True), ("GET", "/{y}", True)], ("GET", "/b"), "0"),
        ([("POST", "/{x}", True), ("GET", "/a", True)], ("GET", "/a"), "1"),
        # What spans several parts of a path, or is no text, the framework reads.
        ([("GET", "/{x:path}", True)], ("GET", "/a/b"), None),
        ([("GET", "/{x:int}", True)], ("GET", "/7"), None),
    ],
)
def test_requests_go_where_the_framework_would_send_them(
    paths: list[tuple[str, str, bool]], asked: tuple[str, str], found: str | None
) -> None:
    entry = _table(*paths).find(*asked)
    assert (None if entry is None else entry[0].lean.route.name) == found
