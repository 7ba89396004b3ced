"""Somebody else's id answers like one that does not exist: every route, both channels, every place an id can stand in.

The matrix is made from the OpenAPI document, so a new route is in it from its first day. Both owners attack each other.
"""

import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from sandbox.identity.provider import USERS
from tests.attacks.opened import asked_upstream, open_attacked, stored, told
from tests.attacks.places import IDS, NO_IDS, Kind, Operation, Where, operations
from tests.support.world import World

pytestmark = pytest.mark.anyio

OWNER = {"alice": USERS["alice"].org_id, "bob": USERS["bob"].org_id}
# What stands in a required field that is not under attack.
FILLED: Mapping[str, object] = {
    "name": "Another name",
    "provider": "bamboohr",
    "user": "dora",
    "destination": "crm",
    "position": "1",
}
# A POST by its name, a question by what it does.
QUESTIONS = {("POST", "/connect_sessions/authenticate")}
REFUSALS: Mapping[Kind, set[int]] = {Kind.CURSOR: {200, 403, 422}, Kind.TOKEN: {422}}
# The states in which somebody else's thing may be when its id is tried.
STATES: Mapping[Kind, tuple[str, ...]] = {
    Kind.ACCOUNT: ("listed", "at StackOne only", "disconnected"),
    Kind.SESSION: ("pending", "linked", "made by a service"),
    Kind.OWNER: ("known",),
    Kind.CURSOR: ("of a list",),
    Kind.TOKEN: ("of a session",),
    Kind.ERASURE: ("complete",),
    Kind.INVITATION: ("live",),
    Kind.CODE: ("live",),
}


@dataclass(frozen=True)
class Attack:
    """One place of one operation, and the state of the thing whose id is put there."""

    operation: Operation
    where: Where
    name: str
    state: str

    @property
    def kind(self) -> Kind:
        """Say of what the id is."""
        return IDS[self.where, self.name]

    def __str__(self) -> str:
        """Name it in a test id."""
        return f"{self.operation} {self.where} {self.name} {self.state}"


ATTACKS = [
    Attack(operation, where, name, state)
    for operation in operations()
    if operation.channel in {"browser", "service"}
    for where, name in operation.places
    if (where, name) in IDS
    for state in STATES[IDS[where, name]]
]


@dataclass(frozen=True)
class Two:
    """Two owners who have the same things, and what each may call with at each channel."""

    world: World
    things: Mapping[str, Mapping[tuple[Kind, str], str]]
    keys: Mapping[str, str]

    def headers(self, who: str, channel: str) -> dict[str, str]:
        """Return somebody's credential for a channel."""
        return self.world.as_user(who) if channel == "browser" else self.world.as_service(self.keys[who])

    async def ask(self, who: str, attack: Attack, value: str) -> httpx2.Response:
        """Put an id into the attacked place, and one's own into all others."""
        path, query, body = attack.operation.path, {}, self._required(who, attack.operation)
        if attack.where == "path":
            path = path.replace(f"{{{attack.name}}}", value)
        elif attack.where == "query":
            query[attack.name] = value
        else:
            body[attack.name] = value
        for where, name in attack.operation.parameters:
            if where == "path":
                path = path.replace(f"{{{name}}}", self.fitting(who, name))
        return await self.world.broker.request(
            attack.operation.method,
            path,
            params=query,
            json=body or None,
            headers=self.headers(who, attack.operation.channel),
        )

    def own(self, who: str, kind: Kind) -> str:
        """Return an id of one's own."""
        return self.things[who][kind, STATES[kind][0]]

    def fitting(self, who: str, name: str) -> str:
        """Return what stands in a place of a path that is not under attack."""
        return self.own(who, IDS["path", name]) if ("path", name) in IDS else str(FILLED[name])

    def _required(self, who: str, operation: Operation) -> dict[str, Any]:
        return {
            name: self.own(who, IDS["body", name]) if ("body", name) in IDS else FILLED[name]
            for name in operation.required_fields
        }


async def things_of(world: World, who: str, key: str) -> dict[tuple[Kind, str], str]:
    """Give an owner one thing of each kind in each state, and return their ids."""
    headers = world.as_user(who)
    erased = await world.broker.delete(f"/v1/owners/{OWNER[who]}", headers=world.as_service(key))
    assert erased.json()["state"] == "complete", erased.text

    async def confirmed(provider: str) -> str:
        account_id = await world.link(who, provider)
        answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=headers)
        assert answer.status_code == 200, answer.text
        return account_id

    async def opened(path: str, credential: dict[str, str], provider: str) -> dict[str, str]:
        answer = await world.broker.post(path, headers=credential, json={"provider": provider})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    gone = await confirmed("hibob")
    assert (await world.broker.delete(f"/v1/linked-accounts/{gone}", headers=headers)).status_code == 204
    linked = (await opened("/v1/connect-sessions", headers, "personio"))["id"]
    pending = await opened("/v1/connect-sessions", headers, "salesforce")
    await confirmed("personio")
    status = await world.broker.get(f"/v1/connect-sessions/{linked}", headers=headers)
    assert status.json()["status"] == "linked", status.text
    listed = await confirmed("bamboohr")
    by_service = f"/v1/owners/{OWNER[who]}/connect-sessions"
    invited = await opened(f"/v1/owners/{OWNER[who]}/invitations", world.as_service(), "greenhouse")
    return {
        (Kind.ACCOUNT, "listed"): listed,
        (Kind.ACCOUNT, "at StackOne only"): await world.link(who, "workday"),
        (Kind.ACCOUNT, "disconnected"): gone,
        (Kind.SESSION, "pending"): pending["id"],
        (Kind.SESSION, "linked"): linked,
        (Kind.SESSION, "made by a service"): (await opened(by_service, world.as_service(), "greenhouse"))["id"],
        (Kind.OWNER, "known"): OWNER[who],
        (Kind.CURSOR, "of a list"): base64.urlsafe_b64encode(listed.encode()).rstrip(b"=").decode(),
        (Kind.TOKEN, "of a session"): pending["token"],
        (Kind.ERASURE, "complete"): erased.json()["id"],
        (Kind.INVITATION, "live"): invited["id"],
        (Kind.CODE, "live"): invited["url"].partition("#")[2],
    }


def unknown_like(kind: Kind, value: str) -> str:
    """Return an id that nothing has, as like the given one as can be; a cursor keeps its place among the ids."""
    if kind is Kind.CURSOR:
        listed = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
        return base64.urlsafe_b64encode(unknown_like(Kind.ACCOUNT, listed).encode()).rstrip(b"=").decode()
    return value[:-1] + ("0" if value[-1] != "0" else "1")


@pytest.fixture(scope="module")
async def two(attacked_url: str) -> AsyncIterator[Two]:
    """Open a world with two owners in it."""
    async with open_attacked(attacked_url) as world:
        keys = {who: await world.create_key(owners=(owner_id,)) for who, owner_id in OWNER.items()}
        things = {who: await things_of(world, who, keys[who]) for who in OWNER}
        # What the project offers is read once for everybody; who happens to be first must not look like a difference.
        await world.broker.get("/v1/connectors", headers=world.as_user("alice"))
        yield Two(world, things, keys)


def test_the_matrix_knows_every_place_that_a_caller_writes_into() -> None:
    places = {place for operation in operations() for place in operation.places}
    unknown = places - IDS.keys() - NO_IDS.keys()
    assert unknown == set(), "say in places.py whether an id stands there, and whose"
    assert {*IDS, *NO_IDS} - places == set(), "the tables of places.py name places that are no more"
    assert not IDS.keys() & NO_IDS.keys()


def test_the_matrix_reaches_both_doors_and_every_kind() -> None:
    assert {(attack.operation.channel, attack.kind) for attack in ATTACKS} == {
        *(("browser", kind) for kind in Kind if kind not in {Kind.OWNER, Kind.ERASURE, Kind.INVITATION}),
        *(("service", kind) for kind in Kind if kind is not Kind.CODE),
    }
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_somebody_elses_id_is_no_id(two: Two, attack: Attack, who: str) -> None:
    [victim] = OWNER.keys() - {who}
    foreign = two.things[victim][attack.kind, attack.state]
    unknown = unknown_like(attack.kind, foreign)
    before, asked_before = await stored(two.world), len(asked_upstream(two.world))

    answer = await two.ask(who, attack, foreign)
    asked_with_foreign = asked_upstream(two.world)[asked_before:]
    expected = await two.ask(who, attack, unknown)
    asked_with_unknown = asked_upstream(two.world)[asked_before + len(asked_with_foreign) :]

    assert told(answer) == told(expected)
    # A filter by somebody else's account finds nothing, as one by an account that does not exist.
    is_filter = attack.where == "query" and attack.kind is Kind.ACCOUNT
    assert answer.status_code in ({200} if is_filter else REFUSALS.get(attack.kind, {403, 404}))
    assert await stored(two.world) == before
    # The same work for both: no clock can tell them apart either, and nothing is changed at StackOne.
    assert [method for method, _ in asked_with_foreign] == [method for method, _ in asked_with_unknown]
    assert [asked for asked in asked_with_foreign if asked[0] != "GET" and asked not in QUESTIONS] == []


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("operation", [each for each in operations() if each.method == "GET"], ids=str)
async def test_no_list_holds_anything_of_somebody_else(two: Two, operation: Operation, who: str) -> None:
    """Whatever is asked with one's own ids shows none of the other's ids, names or people."""
    [victim] = OWNER.keys() - {who}
    path = operation.path
    for where, name in operation.parameters:
        if where == "path":
            path = path.replace(f"{{{name}}}", two.fitting(who, name))
    answer = await two.world.broker.get(path, headers=two.headers(who, operation.channel))
    marks = {value for (kind, _), value in two.things[victim].items() if kind is not Kind.CURSOR}
    marks |= {USERS[victim].org_name, USERS[victim].email}
    assert [mark for mark in marks if mark in answer.text] == []


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_no_position_of_the_feed_shows_somebody_elses_changes(two: Two, who: str) -> None:
    everything = (await two.world.broker.get("/v1/events", headers=two.world.as_service())).json()["data"]
    assert {entry["owner_id"] for entry in everything} == set(OWNER.values())
    for position in [0, *(entry["position"] - 1 for entry in everything)]:
        answer = await two.world.broker.get(
            "/v1/events", params={"after": position}, headers=two.world.as_service(two.keys[who])
        )
        assert {entry["owner_id"] for entry in answer.json()["data"]} <= {OWNER[who]}
    ahead = await two.world.broker.get(
        "/v1/events", params={"after": 2**62}, headers=two.world.as_service(two.keys[who])
    )
    assert ahead.status_code == 410


NEARLY_ACME: Mapping[str, str] = {
    "other case": "ORG_ACME",
    "first letter": "Org_acme",
    "full-width letter": "org_\uff41cme",
    "cyrillic letter": "org_\u0430cme",
    "zero-width joiner": "org_\u200dacme",
    "soft hyphen": "org_\u00adacme",
    "combining mark": "org_acme\u0301",
    "percent": "org_acme%",
    "like pattern": "org%",
    "one-character pattern": "orgxacme",
    "any one character": "org_acm_",
    "comma": "org_acme,org_globex",
    "dot segments": "org_globex..org_acme",
    "encoded": "org%5facme",
    "quoted": "'org_acme'",
    "sql": "' OR owner_id = 'org_acme",
    "json": '{"id": "org_acme"}',
    "prefix": "org_acm",
    "suffix": "org_acme2",
}


@pytest.mark.parametrize("owner_id", NEARLY_ACME.values(), ids=NEARLY_ACME.keys())
async def test_an_owner_whose_id_is_nearly_anothers_is_another_owner(two: Two, owner_id: str) -> None:
    world = two.world
    account_id, session_id = two.own("alice", Kind.ACCOUNT), two.own("alice", Kind.SESSION)
    headers = world.as_user("bob", org_id=owner_id)
    assert (await world.broker.get("/v1/linked-accounts", headers=headers)).json()["data"] == []
    for method, path in (
        ("GET", f"/v1/linked-accounts/{account_id}"),
        ("POST", f"/v1/linked-accounts/{account_id}/confirm"),
        ("DELETE", f"/v1/linked-accounts/{account_id}"),
        ("GET", f"/v1/connect-sessions/{session_id}"),
    ):
        assert (await world.broker.request(method, path, headers=headers)).status_code == 404, path
    editing = await world.broker.post("/v1/connect-sessions", headers=headers, json={"account_id": account_id})
    assert editing.status_code == 404


@pytest.mark.parametrize("owner_id", NEARLY_ACME.values(), ids=NEARLY_ACME.keys())
async def test_a_key_for_one_owner_does_not_open_one_that_is_spelled_nearly_so(two: Two, owner_id: str) -> None:
    world = two.world
    encoded = "".join(f"%{byte:02X}" for byte in owner_id.encode())
    answer = await world.broker.get(
        f"/v1/owners/{encoded}/linked-accounts", headers=world.as_service(two.keys["alice"])
    )
    assert answer.status_code in {403, 404}
    explained = await world.broker.post(
        "/v1/policy/explain", headers=world.as_service(two.keys["alice"]), json={"owner_id": owner_id}
    )
    assert explained.status_code in {403, 422}
