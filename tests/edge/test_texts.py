"""NUL and lone surrogates, in every place where a text can come in: the same refusal on both databases."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

BAD = {
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
    "low surrogate": "\udc00",
    "control": "a\x1bb",
    "delete": "a\x7fb",
    "C1 control": "a\x9b2Jb",
    "next line": "a\x85b",
}
SESSION = ["provider", "account_id", "label", "connector_profile_id"]
OWNER_SESSION = [*SESSION, "origin_owner_name", "origin_username", "integration_id"]
PATHS = [
    "/v1/linked-accounts/{}",
    "/v1/connect-sessions/{}",
    "/v1/accounts/{}",
    "/v1/owners/{}/linked-accounts",
    "/v1/owners/{}/connect-sessions/x",
    "/v1/owners/o/connect-sessions/{}",
]


def as_json(value: object) -> bytes:
    """Spell JSON as an attacker would: a lone surrogate is legal there as an escape."""
    return json.dumps(value, ensure_ascii=True).encode()


async def post(world: World, path: str, body: object, headers: dict[str, str]) -> int:
    answer = await world.broker.post(
        path, content=as_json(body), headers={**headers, "content-type": "application/json"}
    )
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code


@pytest.mark.parametrize("kind", BAD)
async def test_bad_text_in_a_body_is_refused_everywhere(world: World, kind: str) -> None:
    bad = BAD[kind]
    for field in SESSION:
        assert await post(world, "/v1/connect-sessions", {field: bad}, world.as_user()) == 422, field
    for path in ("/v1/owners/o/connect-sessions", "/v1/owners/o/auth-links"):
        for field in OWNER_SESSION:
            assert await post(world, path, {field: bad}, world.as_service()) == 422, field
    for value in (bad, [bad], {"x": bad}, {bad: 1}, {"x": [{"y": bad}]}):
        metadata = value if isinstance(value, dict) else {"x": value}
        if kind not in {"control", "delete"}:
            assert await post(world, "/v1/owners/o/connect-sessions", {"metadata": metadata}, world.as_service()) == 422
    assert await post(world, "/v1/connect-sessions", {bad: 1}, world.as_user()) == 422
    assert await post(world, "/v1/connect-sessions", {"categories": [bad]}, world.as_user()) == 422
    explain: list[dict[str, Any]] = [
        {"owner_id": bad},
        {"owner_id": "o", "provider": bad},
        {"owner_id": "o", "connector_profile_id": bad},
        {"owner_id": "o", "channel": bad},
    ]
    for body in explain:
        assert await post(world, "/v1/policy/explain", body, world.as_service()) == 422
    pin = await world.broker.put(
        "/v1/owners/o/name",
        content=as_json({"name": bad}),
        headers={**world.as_service(), "content-type": "application/json"},
    )
    assert pin.status_code == 422
    assert await world.received("POST", "/connect_sessions") == []


@pytest.mark.parametrize("bad", ["%00", "a%00b", "%ED%A0%80", "%FF", "%C0%80", "%0A", "%0D%0A", "%7F", "%1B"])
async def test_bad_text_in_a_path_or_query_is_refused_or_unknown(world: World, bad: str) -> None:
    for path in PATHS:
        headers = world.as_user() if path.startswith(("/v1/linked", "/v1/connect")) else world.as_service()
        answer = await world.broker.get(path.format(bad), headers=headers)
        # Bytes that are no UTF-8 arrive as replacement characters: an id like any other, which does not exist.
        assert answer.status_code in {200, 404, 422}, path
        if "%00" in bad or quote(bad) in {"%250A", "%250D%250A", "%257F", "%251B"}:
            assert answer.status_code == 422, path
    for query in ("provider", "status", "cursor", "limit"):
        answer = await world.broker.get(f"/v1/linked-accounts?{query}={bad}", headers=world.as_user())
        assert answer.status_code in {200, 422}, query
        if "%00" in bad:
            assert answer.status_code == 422, query
