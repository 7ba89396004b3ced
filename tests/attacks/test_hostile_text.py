"""Text that databases, logs and people stumble over, in every place of the OpenAPI document that takes text."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.attacks.opened import asked_upstream, open_attacked, stored
from tests.attacks.places import Operation, Where, operations
from tests.support.world import World

# What a text column takes is the database's own business.
pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

TEXTS: Mapping[str, str] = {
    "nul": "a\x00b",
    "only-nul": "\x00",
    "lone-surrogate": "a\ud800b",
    "low-surrogate": "\udfff",
    "reversed-surrogates": "\ude00\ud83d",
    "escape": "\x1b[2Ja",
    "newline": "a\r\nSet-Cookie: a=b",
    "delete": "a\x7f",
    "right-to-left-override": "gnp.\u202eexe",
    "isolate": "a\u2066b\u2069",
    "embedding": "\u202aa",
    "too-long": "a" * 5000,
    "too-long-in-bytes": "\U0001f99c" * 5000,
    "empty": "",
}
# They come as bytes that are no UTF-8, and the web framework puts replacement characters in their place.
_ONLY_IN_JSON = {"lone-surrogate", "low-surrogate", "reversed-surrogates"}
_OBJECTS = {"metadata", "claims"}
# Free JSON, in which line ends and the like are escapes and harmless.
_FREE_IN_OBJECTS = {"escape", "newline"}
_LISTS = {"categories"}
_NOT_TEXT = {"multiple", "dry_run", "has_account", "expires_in", "max_removal_percent"}
# An empty filter filters nothing, and an empty path segment is another path.
_MAY_BE_EMPTY = {("query", "cursor"), ("body", "metadata"), ("body", "claims")}
_FILLED: Mapping[str, object] = {
    "name": "a",
    "owner_id": "org_acme",
    "token": "t",
    "user": "dora",
    "code": "c",
    "account_id": "1",
}


_IN_PATHS = (
    ("owner_id", "org_acme"),
    ("account_id", "1"),
    ("provider", "bamboohr"),
    ("destination", "crm"),
    ("position", "1"),
)


@dataclass(frozen=True)
class Place:
    """A place that takes text."""

    operation: Operation
    where: Where
    name: str

    def __str__(self) -> str:
        """Name it in a test id."""
        return f"{self.operation} {self.where} {self.name}"


PLACES = [
    Place(operation, where, name)
    for operation in operations()
    if operation.channel in {"browser", "service"}
    for where, name in operation.places
    if name not in _NOT_TEXT
]


@dataclass(frozen=True)
class Scene:
    """A world with one open session in it."""

    world: World
    session_id: str

    async def put(self, place: Place, text: str) -> httpx2.Response:
        """Put a text into a place."""
        operation, query, body = place.operation, {}, {name: _FILLED[name] for name in place.operation.required_fields}
        path = operation.path.replace("{" + place.name + "}", quote(text.encode("utf-8", "surrogatepass"), safe=""))
        for name, value in (*_IN_PATHS, ("session_id", self.session_id)):
            path = path.replace(f"{{{name}}}", value)
        if place.where == "query":
            query[place.name] = text.encode("utf-8", "surrogatepass")
        if place.where == "body":
            body[place.name] = _shaped(place.name, text)
        credential = self.world.as_user() if operation.channel == "browser" else self.world.as_service()
        return await self.world.broker.request(
            operation.method,
            path
            + ("?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items()) if query else ""),
            # As an attacker spells it: JSON takes lone surrogates as escapes.
            content=json.dumps(body) if body else None,
            headers={**credential, **({"content-type": "application/json"} if body else {})},
        )


def _shaped(name: str, text: str) -> Any:
    if name in _OBJECTS:
        return {"x": [{"y": text}]}
    return [text] if name in _LISTS else text


@pytest.fixture(scope="module")
async def scene(attacked_url: str) -> AsyncIterator[Scene]:
    """Open a world and a session."""
    async with open_attacked(attacked_url) as world:
        opened = await world.broker.post("/v1/connect-sessions", headers=world.as_user())
        yield Scene(world, opened.json()["id"])


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_hostile_text_is_refused_the_same_everywhere(scene: Scene, place: Place) -> None:
    before, asked = await stored(scene.world), len(asked_upstream(scene.world))
    for name, text in TEXTS.items():
        if place.where != "body" and name in _ONLY_IN_JSON:
            continue
        if not text and (place.where == "path" or (place.where, place.name) in _MAY_BE_EMPTY):
            continue
        if place.name in _OBJECTS and name in _FREE_IN_OBJECTS:
            continue
        answer = await scene.put(place, text)
        assert answer.status_code == 422, name
        assert answer.headers["content-type"] == "application/problem+json"
        assert text not in answer.text or len(text) < 2, name
    assert await stored(scene.world) == before
    assert asked_upstream(scene.world)[asked:] == []


GOOD = {
    "hebrew": "\u05d0\u05e8\u05d2\u05d5\u05df",
    "arabic-with-mark": "\u0634\u0631\u0643\u0629\u200f (Acme)",
    "family-emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "combining": "Z\u0351\u036b",
    "quotes": 'O\'Brien "the" <b>Smith</b> & Sons; --',
    "format": "%s %d {0} ${jndi:ldap://x} {{7*7}}",
    "path": "../../etc/passwd",
    "longest": "\U0001f99c" * 255,
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
async def test_text_that_is_only_unusual_arrives_as_it_is(scene: Scene, text: str) -> None:
    answer = await scene.world.broker.post("/v1/connect-sessions", headers=scene.world.as_user(), json={"label": text})
    assert answer.status_code == 201
    [*_, sent] = [json.loads(entry["text"]) for entry in await scene.world.received("POST", "/connect_sessions")]
    assert sent["label"] == text
