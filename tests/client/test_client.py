"""The Python client against a real broker, as a backend uses it: blocking in threads, and on asyncio."""

import ast
import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.identity.caller import Scope
from app.sync.sweep import run_sweep
from connect_broker_client import (
    AsyncBroker,
    Broker,
    KeyRefused,
    NeedsReauth,
    NotAllowed,
    NotFound,
    NotLinked,
    NotUsable,
    PositionGone,
    RequestRefused,
    Retries,
    StateChanged,
    TellOperator,
    TryLater,
)
from tests.checks.blocking_client import CLIENT
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio


async def linked(world: World, user: str, **fields: Any) -> str:
    account_id = await world.link(user, **fields)
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))
    assert answer.status_code == 200
    return account_id


async def set_status(world: World, account_id: str, user: str, status: str) -> None:
    await world.switch("PATCH", f"/accounts/{account_id}", {"status": status})
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))
    assert answer.json()["status"] == status


def client(world: World, key: str | None = None, **options: Any) -> AsyncBroker:
    return AsyncBroker(str(world.broker.base_url), key or world.service_key, **options)


async def test_an_account_to_work_with_or_what_to_do_first(world: World) -> None:
    async with client(world) as broker:
        acme = broker.owners["org_acme"]
        with pytest.raises(NotLinked) as nothing:
            await acme.accounts.require("bamboohr")
        assert (await nothing.value.connect_link()).startswith("http")
        account_id = await linked(world, "alice")
        assert (await acme.accounts.require("bamboohr")).account_id == account_id
        assert [account.account_id async for account in acme.accounts.list()] == [account_id]
        assert await acme.accounts.first("workday") is None

        await set_status(world, account_id, "alice", "error")
        with pytest.raises(NeedsReauth) as broken:
            await acme.accounts.require("bamboohr")
        # Nothing was asked for until somebody wants the link.
        assert len(await world.received("POST", "/connect_sessions")) == 1
        assert broken.value.account.account_id == account_id
        assert (await broken.value.reconnect_link(expires_in=3600)).startswith("http")
        sent = (await world.received("POST", "/connect_sessions"))[-1]["body"]
        assert (sent["account_id"], sent["expires_in"]) == (account_id, 3600)
        # One line: who must reconnect?
        assert [one.account_id async for one in broker.accounts.list(needs_reauth=True)] == [account_id]
        # Of two, the one that works.
        other = await linked(world, "alice", multiple=True)
        assert (await acme.accounts.require("bamboohr")).account_id == other
        assert (await acme.get()).needs_reauth == 1

        await set_status(world, account_id, "alice", "suspended")
        await set_status(world, other, "alice", "suspended")
        with pytest.raises(NotUsable, match="suspended"):
            await acme.accounts.require("bamboohr")


async def test_the_blocking_client_does_the_same(world: World) -> None:
    account_id = await linked(world, "alice")
    await linked(world, "bob")

    def work() -> None:
        with Broker(str(world.broker.base_url), world.service_key) as broker:
            acme = broker.owners["org_acme"]
            assert acme.accounts.require("bamboohr").account_id == account_id
            assert set(broker.accounts.get_many([account_id, "nobody", account_id])) == {account_id}
            assert {owner.owner_id for owner in broker.owners.list()} == {"org_acme", "org_globex"}
            session = acme.sessions.create(provider="workday", username="alice@acme.example")
            assert session.token.get_secret_value() not in repr(session)
            assert acme.sessions.get(session.id).status == "pending"
            assert acme.sessions.end(session.id).status == "ended"
            link = acme.auth_links.create(provider="workday", expires_in=3600)
            assert link.url.startswith("http")
            assert link.url not in repr(link)
            assert acme.auth_links.revoke(link.id).status == "ended"
            with pytest.raises(NotLinked) as nothing:
                acme.accounts.require("workday")
            assert nothing.value.connect_link().startswith("http")
            events = list(broker.events.follow(for_seconds=0.2))
            assert [event.kind for event in events] == ["account.linked", "account.linked"]
            assert list(broker.events.follow(events[0].cursor, for_seconds=0.2)) == events[1:]
            assert list(broker.events.follow(events[1].cursor, for_seconds=0.2)) == []
            assert world.service_key not in repr(broker)

    await asyncio.to_thread(work)


async def test_a_user_token_makes_a_browser_that_user(world: World) -> None:
    account_id = await linked(world, "alice")
    async with client(world) as broker:
        acme = broker.owners["org_acme"]
        made = await acme.user_token("alice@acme.example", expires_in=600, claims={"role": "admin"})
        assert made.expires_at > datetime.now(UTC) + timedelta(seconds=500)
        headers = {"authorization": f"Bearer {made.token.get_secret_value()}"}
        answer = await world.broker.get("/v1/linked-accounts", headers=headers)
        assert [row["account_id"] for row in answer.json()["data"]] == [account_id]
        assert (await acme.revoke_user_tokens("alice@acme.example")).user == "alice@acme.example"


async def test_errors_say_what_to_do_next(world: World) -> None:
    account_id = await linked(world, "alice")
    reader = await world.create_key(Scope.ACCOUNTS_READ, owners=("org_globex",))
    async with client(world) as broker, client(world, reader) as limited, client(world, "sk_nothing") as stranger:
        with pytest.raises(KeyRefused):
            await stranger.owners["org_acme"].get()
        with pytest.raises(NotAllowed, match="events:read"):
            await limited.events.read()
        with pytest.raises(NotFound) as missing:
            await limited.accounts.get(account_id)
        assert missing.value.request_id is not None
        with pytest.raises(RequestRefused) as refused:
            await broker.owners["org_acme"].sessions.create(expires_in=1)
        assert [location for location, _ in refused.value.errors] == ["body.expires_in"]
        with pytest.raises(PositionGone) as gone:
            await broker.events.read("99999")
        assert isinstance(gone.value, StateChanged)
        await world.switch("POST", "/faults", {"path": "/connect_sessions", "status": 401, "times": 1})
        with pytest.raises(TellOperator):
            await broker.owners["org_acme"].sessions.create(provider="workday")
        for odd in ("", ".", ".."):
            with pytest.raises(ValueError, match="dot"):
                broker.owners[odd]
        slashed = broker.owners["a/../org_acme"]
        with pytest.raises((NotFound, RequestRefused)):
            await slashed.get()


class Moody(httpx2.AsyncBaseTransport):
    """A wire to a broker that answers as it is told, then as the real one does."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.calls = 0
        self._wire = httpx2.AsyncHTTPTransport(verify=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        self.calls += 1
        if not self.answers:
            return await self._wire.handle_async_request(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        """Close the wire."""
        await self._wire.aclose()


def answer(status: int, code: str | None = "unavailable", **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json={"code": code, "title": "no"} if code else None, headers=headers)


async def test_what_passes_by_itself_is_tried_again_within_a_budget(world: World) -> None:
    quick = Retries(first_pause_seconds=0.01)

    async def tries(call: Any, *answers: httpx2.Response | Exception, retries: Retries = quick) -> tuple[int, Any]:
        wire = Moody(*answers)
        async with client(world, transport=wire, retries=retries) as broker:
            try:
                await call(broker.owners["org_acme"])
            except (TryLater, TellOperator) as error:
                return wire.calls, error
            return wire.calls, None

    def read(owner: Any) -> Any:
        return owner.accounts.first("bamboohr")

    def mint(owner: Any) -> Any:
        return owner.sessions.create(provider="workday", multiple=True)

    assert await tries(read, answer(503), answer(429, "too_many_requests")) == (3, None)
    assert await tries(mint, answer(503), answer(429, "too_many_requests")) == (3, None)
    assert await tries(read, httpx2.ReadError("cut"), answer(503, None)) == (3, None)
    assert await tries(mint, httpx2.ConnectError("refused")) == (2, None)
    # Whether the first one opened a session, nobody knows.
    for unknown in (httpx2.ReadError("cut"), answer(503, None)):
        calls, error = await tries(mint, unknown)
        assert (calls, type(error)) == (1, TryLater)
    calls, error = await tries(read, answer(502, "upstream_rejected"))
    assert (calls, type(error)) == (1, TellOperator)
    calls, error = await tries(read, *(answer(503) for _ in range(9)))
    assert (calls, type(error)) == (4, TryLater)
    # A pause that does not fit into the budget is not begun.
    calls, error = await tries(read, answer(503, **{"retry-after": "120"}))
    assert (calls, error.retry_after) == (1, 120)
    began = asyncio.get_running_loop().time()
    assert await tries(read, answer(503, **{"retry-after": "1"})) == (2, None)
    assert asyncio.get_running_loop().time() - began >= 1

    # A broker that stays away is not asked four times by every call for ever.
    wire = Moody(*(answer(503) for _ in range(500)))
    async with client(world, transport=wire, retries=quick) as broker:
        for _ in range(20):
            with pytest.raises(TryLater):
                await broker.owners["org_acme"].get()
    assert wire.calls == 30


async def test_following_outlasts_an_outage(world: World) -> None:
    account_id = await linked(world, "alice")
    wire = Moody(httpx2.ConnectError("away"), answer(503), answer(503, None))
    async with client(world, transport=wire, retries=Retries(attempts=1)) as broker:
        async for event in broker.events.follow(patience_seconds=30):
            assert event.account_id == account_id
            break
    wire = Moody(*(answer(503) for _ in range(9)))
    async with client(world, transport=wire, retries=Retries(attempts=1)) as broker:
        with pytest.raises(TryLater):
            await anext(broker.events.follow(patience_seconds=1.5))


async def test_more_than_a_page_is_gone_through(database_url: str) -> None:
    async with open_world(database_url, webhooks=False) as world:
        ids = [(await world.link("alice", multiple=True)) for _ in range(250)]
        await run_sweep(world.runtime, by="test")
        async with client(world) as broker:
            assert {one.account_id async for one in broker.accounts.list()} == set(ids)
            assert {one.account_id async for one in broker.owners["org_acme"].accounts.list()} == set(ids)
            assert set(await broker.accounts.get_many(ids)) == set(ids)


def test_the_client_knows_nothing_of_the_broker_s_code() -> None:
    allowed = {"connect_broker_client", "httpx2", "pydantic", "sqlalchemy"}
    for path in Path(CLIENT).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names}
            assert roots <= allowed | sys.stdlib_module_names, path.name
