"""The sandbox says what the facts say, field by field, and takes what they say it takes."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from sandbox.stackone.signing import sign
from tests.contract.facts import FAMILIES, Fact, Facts, read_facts
from tests.contract.page import PAGE, written_page
from tests.contract.wire import FORM, OWNER, SECRET, Exchange, Wire

pytestmark = pytest.mark.anyio

_CALLS = [
    pytest.param(family, call, int(status), id=f"{call} {status}")
    for family in FAMILIES
    for call, answers in read_facts(family).calls.items()
    for status in answers
]
_HEADERS_OF_ANY_CLIENT = {"host", "accept", "accept-encoding", "connection", "content-length", "user-agent"}


def differences(facts: Facts, answer: Mapping[str, Any], exchange: Exchange) -> list[str]:
    """Return everything in which an answer differs from what the facts say of it."""
    missing = [f"header {name}: missing" for name in answer.get("headers", ()) if name not in exchange.headers]
    if "list_of" in answer:
        if not isinstance(exchange.body, list) or not exchange.body:
            return [*missing, "not a list with something in it"]
        return missing + [wrong for row in exchange.body for wrong in facts.complaints(row, answer["list_of"])]
    if "shape" in answer:
        return missing + facts.complaints(exchange.body, answer["shape"])
    return missing if exchange.body is None else [*missing, "a body that the facts know nothing of"]


@pytest.mark.parametrize(("family", "call", "status"), _CALLS)
async def test_an_answer_is_what_the_facts_say(
    family: str, call: str, status: int, facts: dict[str, Facts], exchanges: list[Exchange]
) -> None:
    found = [exchange for exchange in exchanges if (exchange.call, exchange.status) == (call, status)]
    assert found, "the sandbox never answered so"
    answer = facts[family].calls[call][str(status)]
    assert [differences(facts[family], answer, exchange) for exchange in found] == [[]] * len(found)


async def test_every_answer_is_one_that_the_facts_know(exchanges: list[Exchange]) -> None:
    known = {(param.values[1], param.values[2]) for param in _CALLS}
    assert {(exchange.call, exchange.status) for exchange in exchanges} == known


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_field_that_is_known_was_seen(family: str, exchanges: list[Exchange]) -> None:
    facts = read_facts(family)
    for exchange in exchanges:
        if exchange.call in facts.calls:
            differences(facts, facts.calls[exchange.call][str(exchange.status)], exchange)
    unseen = {(fact.shape, fact.name) for fact in facts.every_field()} - facts.seen
    assert unseen == {(fact.shape, fact.name) for fact in facts.every_field() if "unsent" in fact.row}


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_standing_is_one_of_three(family: str) -> None:
    facts = read_facts(family)
    rows = [fact.row for fact in facts.every_field()]
    rows += [row for request in facts.requests.values() for row in request["fields"].values()]
    rows += [row for answers in facts.calls.values() for row in answers.values()]
    assert {row["from"] for row in rows} <= {"documented", "observed", "inferred"}
    assert all("absent" in row for row in rows if "unsent" in row)


async def test_a_webhook_has_the_headers_that_the_facts_know(exchanges: list[Exchange]) -> None:
    deliveries = [exchange for exchange in exchanges if exchange.call == "webhook"]
    assert {delivery.body["event"] for delivery in deliveries} == {
        "account.created",
        "account.updated",
        "account.deleted",
    }
    for delivery in deliveries:
        told = set(delivery.headers) - _HEADERS_OF_ANY_CLIENT
        assert told == set(read_facts("stackone_api").rest["webhook_headers"])
        assert delivery.headers["x-stackone-signature"] == sign(delivery.raw, SECRET)
        assert len(delivery.headers["x-stackone-signature"]) == 43


async def test_the_hubs_preflights_are_let_through(wire: Wire, facts: dict[str, Facts]) -> None:
    known = facts["hub_api"].rest["preflight"]
    for method in known["methods"]:
        asked = {
            "origin": "https://app.example.com",
            "access-control-request-method": method,
            "access-control-request-headers": ",".join(known["headers"]),
        }
        answer = await wire.http.options(f"{wire.url}/hub/accounts", headers=asked)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    # Nor does any page see an answer without being let in, errors included.
    refused = await wire.http.get(f"{wire.url}/hub/settings", headers={"origin": "https://app.example.com"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    plain = await wire.http.get(f"{wire.url}/accounts", headers={"origin": "https://app.example.com"})
    assert "access-control-allow-origin" not in plain.headers


async def test_the_page_of_what_is_inferred_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == written_page(), "run: python -m tests.contract.page"


# What the sandbox takes.

_WRONG: Mapping[str, object] = {"string": 7, "number": "7", "boolean": "yes", "object": "no", "array": "no"}
_PLAIN: Mapping[str, object] = {"string": "x", "number": 60, "boolean": True, "object": {}, "array": ["hris"]}
_REQUESTS = [
    pytest.param(family, request, name, id=f"{request} {name}")
    for family in FAMILIES
    for request, row in read_facts(family).requests.items()
    for name in row["fields"]
]


class Request:
    """A request that is good but for the one field that a test changes."""

    def __init__(self, wire: Wire, family: str, request: str) -> None:
        self.wire = wire
        self.request = request
        self.fields = {
            name: Fact(request, name, row) for name, row in read_facts(family).requests[request]["fields"].items()
        }
        self._known: dict[str, object] = {}

    async def prepare(self) -> "Request":
        """Link an account and mint a session that the request may be about."""
        self._known = {"@account": await self.wire.link(), "@token": await self.wire.mint(), "@form": FORM}
        return self

    def good(self, name: str) -> object:
        """Return a value that fits a field."""
        row = self.fields[name].row
        if "example" in row:
            return self._known.get(row["example"], row["example"])
        kind = self.fields[name].types[0]
        if "one_of" in row and kind == "string":
            return row["one_of"][0]
        return OWNER.get(name, _PLAIN[kind])

    async def status(self, **changed: object) -> int:
        """Ask with the required fields and the changed ones; one that is changed to ... is left out."""
        needed = {name: self.good(name) for name, fact in self.fields.items() if fact.row.get("required")}
        body = {name: value for name, value in {**needed, **changed}.items() if value is not ...}
        token = str(self._known["@token"])
        match self.request:
            case "session":
                answer = await self.wire.api("POST /connect_sessions", json=body)
            case "token":
                answer = await self.wire.api("POST /connect_sessions/authenticate", json=body)
            case "account":
                answer = await self.wire.api("PATCH /accounts/{id}", str(self._known["@account"]), json=body)
            case "form":
                answer = await self.wire.hub(token, "POST /hub/accounts", json=body)
            case _:
                answer = await self.wire.hub(token, "POST /hub/connection_attempts", json=body)
        return answer.status_code


@pytest.mark.parametrize(("family", "request_name", "name"), _REQUESTS)
async def test_a_field_of_a_request_is_taken_as_the_facts_say(
    family: str, request_name: str, name: str, wire: Wire
) -> None:
    asked = await Request(wire, family, request_name).prepare()
    fact = asked.fields[name]
    fine = await asked.status(**{name: asked.good(name)})
    if fact.row.get("refused"):
        assert fine == 400
        return
    assert 200 <= fine < 300
    if not fact.row.get("untyped"):
        assert await asked.status(**{name: _WRONG[fact.types[0]]}) == 400
    if fact.row.get("required"):
        assert 400 <= await asked.status(**{name: ...}) < 500
    if "null" in fact.types:
        assert 200 <= await asked.status(**{name: None}) < 300
    for value in fact.row.get("one_of", ()):
        assert 200 <= await asked.status(**{name: [value] if fact.types[0] == "array" else value}) < 300
    if "one_of" in fact.row:
        assert await asked.status(**{name: ["neither"] if fact.types[0] == "array" else "neither"}) == 400


# The comparison itself: what would go unnoticed otherwise.


def _spoilt(facts: Facts, body: dict[str, Any], shape: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the body with each of its fields renamed, emptied of its type, and (where it must be there) dropped."""
    made = [("an unknown field", {**body, "surprise": 1})]
    for name, fact in facts.fields(shape).items():
        if name not in body:
            continue
        rest = {key: value for key, value in body.items() if key != name}
        made.append((f"{name} renamed", {**rest, f"{name}2": body[name]}))
        made.append((f"{name} of another type", {**body, name: 1.5 if "number" not in fact.types else {}}))
        if not fact.row.get("absent"):
            made.append((f"{name} dropped", rest))
        if "one_of" in fact.row and isinstance(body[name], str):
            made.append((f"{name} of another value", {**body, name: "neither"}))
        if fact.row.get("format") == "moment":
            made.append((f"{name} no moment", {**body, name: "yesterday"}))
    return made


@pytest.mark.parametrize(("family", "call", "status"), _CALLS)
async def test_no_difference_goes_unnoticed(family: str, call: str, status: int, exchanges: list[Exchange]) -> None:
    facts = read_facts(family)
    answer = facts.calls[call][str(status)]
    exchange = next(found for found in exchanges if (found.call, found.status) == (call, status))
    assert "from" in answer
    if not isinstance(exchange.body, dict):
        return
    spoilt = _spoilt(facts, exchange.body, answer["shape"])
    assert len(spoilt) > 1
    unnoticed = [what for what, body in spoilt if not facts.complaints(json.loads(json.dumps(body)), answer["shape"])]
    assert unnoticed == []
