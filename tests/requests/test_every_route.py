"""Rules that hold for every operation of the OpenAPI document, whoever adds it."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.identity.caller import Scope
from app.main import create_app
from tests.support.world import World, settings_for

pytestmark = pytest.mark.anyio

OPEN = {("get", "/livez"), ("get", "/readyz")}
WEBHOOK = ("post", "/v1/webhooks/stackone")


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    settings = settings_for(
        database_url="sqlite:///unused.db", stackone_url="http://127.0.0.1:1", issuer="http://127.0.0.1:2"
    )
    return create_app(settings).openapi()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of every operation."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def filled(path: str) -> str:
    """Put ids into a path."""
    for name in ("owner_id", "account_id", "session_id", "erasure_id", "invitation_id"):
        path = path.replace("{" + name + "}", "47187425466113776871")
    path = path.replace("{provider}", "bamboohr").replace("{destination}", "crm").replace("{position}", "1")
    assert "{" not in path, f"say what to put into {path}"
    return path


async def test_without_credentials_everything_is_401_but_for_a_short_list(world: World) -> None:
    seen = set()
    for method, path, _ in operations():
        answer = await world.broker.request(method, filled(path))
        seen.add((method, path))
        if (method, path) in OPEN:
            assert answer.status_code == 200, (method, path)
        else:
            assert answer.status_code == 401, (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == 'Bearer realm="connect-broker"'
    assert seen > OPEN
    assert WEBHOOK in seen
    assert len(seen) >= 12


async def test_an_unknown_query_parameter_is_refused_wherever_a_query_is_read(world: World) -> None:
    seen = set()
    for method, path, operation in operations():
        if not any(parameter["in"] == "query" for parameter in operation.get("parameters", ())):
            continue
        headers = world.as_user("alice") if operation["tags"] == ["browser"] else world.as_service()
        answer = await world.broker.request(method, filled(path), params={"providers": "workday"}, headers=headers)
        assert answer.status_code == 422, (method, path)
        assert [error["location"] for error in answer.json()["errors"]] == ["query.providers"], (method, path)
        seen.add(path)
    assert seen >= {"/v1/linked-accounts", "/v1/owners/{owner_id}/linked-accounts", "/v1/events"}


async def test_no_route_accepts_the_credential_of_another_kind(world: World) -> None:
    channels = {"browser": world.as_service(), "service": world.as_user("alice"), "webhook": world.as_service()}
    for method, path, operation in operations():
        [tag] = operation["tags"]
        if tag in channels:
            answer = await world.broker.request(method, filled(path), headers=channels[tag])
            assert answer.status_code == 401, (method, path)


async def test_every_service_route_needs_a_scope(world: World) -> None:
    """A key with any single scope opens some routes and gets 403 from the others; none is open to all keys."""
    keys = {scope: world.as_service(await world.create_key(scope)) for scope in Scope}
    for method, path, operation in operations():
        if operation["tags"] == ["service"]:
            answers = {
                scope: (await world.broker.request(method, filled(path), headers=key)).status_code
                for scope, key in keys.items()
            }
            assert [scope for scope, status in answers.items() if status != 403], (method, path)
            refused = [scope for scope, status in answers.items() if status == 403]
            assert len(refused) == len(Scope) - 1, (method, path, answers)


async def test_every_answer_forbids_keeping_it_and_says_what_it_is(world: World) -> None:
    answers = [await world.broker.request(method, filled(path)) for method, path, _ in operations()]
    answers += [
        await world.broker.get("/nowhere"),
        await world.broker.put("/v1/linked-accounts"),
        await world.broker.post("/v1/connect-sessions", content=b"x" * 100_000, headers=world.as_user()),
        await world.broker.post("/v1/connect-sessions", content=b"{", headers=world.as_user() | JSON),
        await world.broker.post("/v1/connect-sessions", content=b"[1]", headers=world.as_user() | JSON),
        await world.broker.post("/v1/connect-sessions", content=b'{"a": NaN}', headers=world.as_user() | JSON),
    ]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store", answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in answer.headers
        if answer.is_error:
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert {"type", "title", "status", "code", "request_id"} <= set(problem)
            assert problem["status"] == answer.status_code < 500
            assert problem["request_id"] == answer.headers["x-request-id"]


JSON = {"content-type": "application/json"}


def test_every_operation_documents_its_failures() -> None:
    for method, path, operation in operations():
        if (method, path) in OPEN:
            continue
        responses = operation["responses"]
        assert {"400", "401", "503"} <= set(responses), (method, path)
        for status, response in responses.items():
            if int(status) >= 400:
                assert set(response["content"]) == {"application/problem+json"}, (method, path, status)
