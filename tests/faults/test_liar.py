"""StackOne lies: whatever it answers, to whichever operation, no account is lost and none is shown to others.

Each operation gets every wrong answer in turn, through the emulator's faults and lies. After each, nothing has been
removed or shown to a stranger and nobody got a 500; once the lies end, all is well without a hand.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from app.errors import AppError
from app.jobs import keep_house
from app.sync.sweep import run_sweep
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "its own 404": {"status": 404},
    "a gateway's 404": {"status": 404, "shape": "gateway"},
    "a page's 404": {"status": 404, "shape": "html"},
    "a 404 without a code": {"status": 404, "body": {"message": "Not found"}},
    "a 404 with another code": {"status": 404, "body": {"statusCode": 400, "message": "Not found"}},
    "a 404 whose code is text": {"status": 404, "body": {"statusCode": "404", "message": "Not found"}},
    "a 404 without a message": {"status": 404, "body": {"statusCode": 404}},
    "a 404 of nothing": {"status": 404, "body": ""},
    "a 404 that is a list": {"status": 404, "body": [{"statusCode": 404, "message": "Not found"}]},
    "a 404 too deep to read": {"status": 404, "body": "[" * 100_000},
    "gone": {"status": 410, "body": {"statusCode": 410, "message": "Use v2"}},
    "a redirect": {"status": 302, "body": "", "headers": {"location": "http://127.0.0.1:1/"}},
    "a key refused": {"status": 401},
    "a scope that lacks": {"status": 403},
    "a firewall's page": {"status": 403, "shape": "html"},
    "a conflict": {"status": 409},
    "a field refused": {"status": 422},
    "too slow": {"status": 408},
    "broken": {"status": 500},
    "a bad gateway": {"status": 502, "shape": "html"},
    "patience for ten days": {"status": 503, "headers": {"retry-after": "864000"}},
    "patience without a number": {"status": 503, "headers": {"retry-after": "soon"}},
    "down, says what stands in front": {"status": 521, "shape": "html"},
    "not now": {"status": 425, "body": ""},
    "not ever": {"status": 501},
    "a login page": {"status": 401, "shape": "html"},
    "a gateway's 400": {"status": 400, "shape": "html"},
    "patience until a date": {"status": 503, "headers": {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}},
    "no content": {"status": 204},
    "an error called 200": {"status": 200, "body": {"statusCode": 404, "message": "Account not found"}},
    "an error beside an empty list": {"status": 200, "body": {"error": "timed out", "data": []}},
    "rows that are none": {"status": 200, "body": [1, None, "x", {}, []]},
    "ids that are none": {
        "status": 200,
        "body": '[{"id": NaN, "provider": "p", "status": "s", "updated_at": "2026-11-01T00:00:00Z"}]',
    },
    "nothing": {"status": 200, "body": ""},
    "null": {"status": 200, "body": "null"},
    "an empty object": {"status": 200, "body": {}},
    "an empty list": {"status": 200, "body": []},
    "an empty envelope": {"status": 200, "body": {"data": []}},
    "an envelope of nothing": {"status": 200, "body": {"data": None}},
    "a number": {"status": 200, "body": "7"},
    "a text": {"status": 200, "body": '"ok"'},
    "a page": {"status": 200, "body": "<html>welcome</html>"},
    "half of it": {"status": 200, "body": '{"id": "a", "prov'},
    "no number": {"status": 200, "body": '{"id": NaN, "updated_at": Infinity}'},
    "too deep to read": {"status": 200, "body": '{"a":' * 100_000},
    "a number too long to read": {"status": 200, "body": '{"id": ' + "9" * 10_000 + "}"},
    "an absurd date": {"status": 200, "body": {}, "headers": {"date": "Fri, 31 Dec 9999 23:59:59 -9999"}},
    "an account that is not one": {
        "status": 200,
        "body": {"id": ["a"], "provider": {}, "status": 1, "updated_at": "x"},
    },
    "an answer cut off": {"cut": True},
    "no answer": {"hang": True},
}
LIES: Mapping[str, Mapping[str, Any]] = {
    "another account than asked for": {"account": {"id": "1"}},
    "an account without an id": {"account": {"id": None}, "listed": {"id": None}},
    "an account without a status": {"account": {"status": None}, "listed": {"status": None}},
    "a status of another kind": {"account": {"status": {"code": 1}}, "listed": {"status": {"code": 1}}},
    "a time that was never": {"account": {"updated_at": "2026-13-45"}, "listed": {"updated_at": "2026-13-45"}},
    "a status without an end": {"account": {"status": "ab" * 9999}, "listed": {"status": "ab" * 9999}},
    "reasons of another kind": {"account": {"status_reasons": "none"}, "listed": {"status_reasons": [7, {"code": 7}]}},
    "a label that is an object": {"account": {"label": {"a": 1}}, "listed": {"label": ["a"]}},
    "a list that gives all to one": {"listed": {"origin_owner_id": "org_globex"}},
    "a time past all times": {"account": {"updated_at": 1e300}, "listed": {"updated_at": 1e300}},
    "an owner with a NUL": {"account": {"origin_owner_id": "org_globex\x00"}},
    "an owner with a blank": {"account": {"origin_owner_id": " org_globex"}},
    "an owner that is a number": {"account": {"origin_owner_id": 7}},
    "an owner that is a list": {"account": {"origin_owner_id": ["org_globex", "org_acme"]}},
    "an owner too long": {"account": {"origin_owner_id": "org_globex" * 100}},
    "no owner": {"account": {"origin_owner_id": None}},
    "a deletion that is not carried out": {"keep_deleted": True},
    "a session of somebody else": {"session": {"id": "another", "origin_owner_id": "org_globex"}},
    "a session without a token": {"session": {"token": None}},
    "a session whose token is a number": {"session": {"token": 7}},
    "a session whose token is empty": {"session": {"token": ""}},
    "a link that is none": {"session": {"auth_link_url": "javascript:alert(1)"}},
    "a session for another provider": {"session": {"provider": "another"}},
    "an attempt of another kind": {"session": {"latest_connection_attempt": "authenticated"}},
}
FAST: Mapping[str, Any] = {
    "timeout_seconds": 0.3,
    "total_timeout_seconds": 0.5,
    "max_attempts": 1,
    "breaker_failures": 1000,
    "requests_per_minute": 100_000,
}
SYNC: Mapping[str, Any] = {"poll_seconds": 0.05, "max_backoff_seconds": 1, "sweep_interval_seconds": 0}
LIMITS: Mapping[str, Any] = {
    "requests_per_user": "100000/minute",
    "requests_per_owner": "100000/minute",
    "requests_per_service": "100000/minute",
    "mint_per_user": "100000/minute",
    "mint_per_owner": "100000/minute",
    "live_sessions_per_owner": 1000,
}


class Victims:
    """Two owners with accounts of their own."""

    def __init__(self, world: World) -> None:
        """Nobody has anything yet."""
        self.world = world
        self.session: dict[str, str] = {}
        self.ids: dict[str, set[str]] = {"alice": set(), "bob": set()}
        self._headers = {user: world.as_user(user, expires_in=3600) for user in self.ids}

    async def link(self, user: str) -> str:
        """Link an account and have the broker know it."""
        account_id = await self.world.link(user)
        assert (await self.call("POST", f"/v1/linked-accounts/{account_id}/confirm", user)).status_code == 200
        self.ids[user].add(account_id)
        return account_id

    async def call(self, method: str, path: str, user: str = "alice", **request: Any) -> Any:
        """Call the broker; nothing that StackOne says makes it answer 500."""
        answer = await self.world.broker.request(method, path, headers=self._headers[user], **request)
        assert answer.status_code != 500, answer.text
        return answer

    async def shown(self, user: str) -> set[str]:
        """Return whose accounts a user sees: none but the owner's, ever."""
        listed = await self.call("GET", "/v1/linked-accounts?limit=200", user)
        assert listed.status_code == 200, listed.text
        ids = {row["account_id"] for row in listed.json()["data"]}
        assert ids <= self.ids[user], "an account of somebody else is shown"
        return ids

    async def all_is_well(self) -> bool:
        """Tell whether everybody sees all of the own accounts."""
        return [await self.shown(user) for user in self.ids] == list(self.ids.values())


@pytest.fixture
async def victims(database_url: str) -> AsyncIterator[Victims]:
    """Open a world with two accounts of each owner."""
    async with open_world(database_url, stackone=FAST, sync=SYNC, limits=LIMITS) as world:
        victims = Victims(world)
        for user in ("alice", "bob", "alice", "bob"):
            await victims.link(user)
        yield victims


async def lie(world: World, method: str, path: str, what: Mapping[str, Any]) -> None:
    """Have StackOne lie in one way, to one operation, until told otherwise."""
    if set(what) <= {"session", "account", "listed", "keep_deleted"}:
        await world.switch("POST", "/lies", what)
    else:
        await world.switch("POST", "/faults", {"method": method, "path": path, "times": None, **what})


async def be_honest(world: World) -> None:
    """End all lies."""
    await world.switch("DELETE", "/faults")
    await world.switch("POST", "/lies", {})


async def confirm(victims: Victims) -> None:
    for account_id in sorted(victims.ids["alice"]):
        await victims.call("POST", f"/v1/linked-accounts/{account_id}/confirm")


async def refresh(victims: Victims) -> None:
    before = len(await victims.world.switch("GET", "/requests"))
    for account_id in sorted(victims.ids["alice"]):
        await victims.world.switch("PATCH", f"/accounts/{account_id}", {"label": "edited"})

    async def read() -> bool:
        requests = (await victims.world.switch("GET", "/requests"))[before:]
        asked = {request["path"] for request in requests if request["method"] == "GET"}
        return {f"/accounts/{account_id}" for account_id in victims.ids["alice"]} <= asked

    await eventually(read)


async def sweep(victims: Victims) -> None:
    try:
        await run_sweep(victims.world.runtime, by="test", longest_pause=0.01)
    except AppError:
        return


async def mint(victims: Victims) -> None:
    for body in ({"provider": "bamboohr"}, {"provider": "salesforce"}, {"account_id": min(victims.ids["alice"])}):
        answer = await victims.call("POST", "/v1/connect-sessions", json=body)
        assert answer.status_code in {201, 404, 409, 422, 502, 503}, answer.text


async def poll(victims: Victims) -> None:
    path = f"/v1/connect-sessions/{victims.session['id']}/poll"
    await victims.call("POST", path, json={"token": victims.session["token"]})


READ, LIST, MINT, POLL = (
    ("GET", "/accounts/"),
    ("GET", "/accounts"),
    ("POST", "/connect_sessions"),
    (
        "POST",
        "/connect_sessions/authenticate",
    ),
)


@pytest.mark.parametrize(
    ("operation", "call"),
    [(confirm, READ), (refresh, READ), (sweep, LIST), (mint, MINT), (mint, READ), (poll, POLL)],
    ids=["confirm", "refresh", "sweep", "mint", "mint-reads", "poll"],
)
async def test_no_single_answer_costs_an_account(victims: Victims, operation: Any, call: tuple[str, str]) -> None:
    world = victims.world
    minted = await victims.call("POST", "/v1/connect-sessions", json={"provider": "workday"})
    victims.session = minted.json()
    for name, what in {**ANSWERS, **LIES}.items():
        await lie(world, *call, what)
        is_about_owners = "owner" in name
        try:
            await operation(victims)
            for user in victims.ids:
                shown = await victims.shown(user)
                assert shown == victims.ids[user] or is_about_owners, f"{name}: an account was lost"
        finally:
            await be_honest(world)
        if is_about_owners:
            # Nobody's accounts are nobody's until they are read again: the timer sees to that.
            await sweep(victims)
    await sweep(victims)
    await eventually(victims.all_is_well, within=30)


async def test_no_answer_to_a_deletion_deletes_more_or_pretends(victims: Victims) -> None:
    world = victims.world
    staying: set[str] = set(victims.ids["alice"])
    leaving: set[str] = set()
    for name, what in {
        **ANSWERS,
        "a deletion that is not carried out": LIES["a deletion that is not carried out"],
    }.items():
        account_id = await victims.link("alice")
        await lie(world, "DELETE", f"/accounts/{account_id}", what)
        answer = await victims.call("DELETE", f"/v1/linked-accounts/{account_id}")
        # An acknowledgement of any shape is one; only a read that says so ends it.
        is_there = world.project.accounts.find(account_id) is not None
        assert answer.status_code == 202 or (answer.status_code == 204 and not is_there), name
        shown = await victims.shown("alice")
        assert staying <= shown <= staying | leaving | {account_id}, name
        assert (account_id in shown) == (answer.status_code == 202), name
        assert await world.received("DELETE", f"/accounts/{account_id}"), f"{name}: nobody was asked"
        await be_honest(world)
        leaving.add(account_id)

    async def carried_out() -> bool:
        is_gone = not any(world.project.accounts.find(account_id) for account_id in leaving)
        return is_gone and await victims.shown("alice") == staying

    await eventually(carried_out, within=30)
    victims.ids["alice"] = staying
    assert await victims.all_is_well()


@pytest.mark.both_databases
async def test_no_answer_makes_an_erasure_complete_that_is_not(victims: Victims) -> None:
    world = victims.world
    for name, what in ANSWERS.items():
        await lie(world, "*", "/accounts", what)
        answer = await world.broker.delete("/v1/owners/org_acme", headers=world.as_service())
        assert (answer.status_code, answer.json()["state"]) == (202, "pending"), name
        await be_honest(world)
    assert await victims.shown("bob") == victims.ids["bob"]

    async def erased() -> bool:
        await keep_house(world.runtime)
        return all(account.origin_owner_id == "org_globex" for account in world.project.accounts)

    await eventually(erased)


@pytest.mark.both_databases
async def test_the_account_that_was_asked_for_is_the_one_that_is_believed(victims: Victims) -> None:
    await lie(victims.world, "GET", "/accounts/", {"account": {"id": min(victims.ids["bob"]), "label": "wrong"}})
    answer = await victims.call("POST", f"/v1/linked-accounts/{min(victims.ids['alice'])}/confirm")
    assert answer.status_code == 502
