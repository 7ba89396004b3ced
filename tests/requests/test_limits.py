"""Limits through the front door: whom each counts, what it answers, and that it is exact with many at once."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from app.connect_sessions.tables import Status, connect_sessions
from app.policy.rules import Channel
from app.stackone.budget import Priority
from app.stackone.client import StackOneClient
from tests.support.redis_server import RedisServer
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

# A call that is repeated because this machine is busy would be counted twice.
PATIENT = {"timeout_seconds": 20, "total_timeout_seconds": 40}
FORGED = {"authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9.c2ln"}


async def statuses(requests: int, ask: Callable[[int], Any]) -> Counter[int]:
    answers = await asyncio.gather(*(ask(number) for number in range(requests)))
    return Counter(answer.status_code for answer in answers)


def minting(world: World, user: str) -> Callable[[int], Any]:
    headers = world.as_user(user)
    return lambda _number: world.broker.post("/v1/connect-sessions", headers=headers, json={})


def minting_for_many(world: World) -> Callable[[int], Any]:
    """Mint as users of as many owners: one owner alone may use a part of the budget only."""
    return lambda number: world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("alice", org_id=f"org_{number}"), json={}
    )


def must_wait(answer: httpx2.Response, limit: str) -> None:
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 3600
    assert answer.json()["code"] == "too_many_requests"
    assert limit in answer.json()["detail"]


async def test_a_user_opens_exactly_as_many_sessions_as_the_limit_says(database_url: str) -> None:
    async with open_world(database_url, limits={"mint_per_user": "7/hour"}) as world:
        assert await statuses(30, minting(world, "alice")) == {201: 7, 429: 23}
        must_wait(await minting(world, "alice")(0), "mint_per_user is 7 per 1 hour")
        assert len(await world.received("POST", "/connect_sessions")) == 7
        # Everything else still works, and so does everybody else.
        assert (await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))).status_code == 200
        assert await statuses(7, minting(world, "carol")) == {201: 7}


async def test_all_users_and_backends_of_an_owner_share_its_limit(database_url: str) -> None:
    async with open_world(database_url, limits={"mint_per_owner": "9/hour"}) as world:

        def ask(number: int) -> Any:
            if number % 3 == 2:
                return world.broker.post("/v1/owners/org_acme/connect-sessions", headers=world.as_service())
            return minting(world, ("alice", "carol")[number % 3])(number)

        assert await statuses(30, ask) == {201: 9, 429: 21}
        must_wait(await minting(world, "carol")(0), "mint_per_owner")
        assert (await minting(world, "bob")(0)).status_code == 201


async def test_requests_are_limited_by_user_by_owner_and_by_service_credential(database_url: str) -> None:
    limits = {"requests_per_user": "5/hour", "requests_per_owner": "8/hour", "requests_per_service": "6/hour"}
    async with open_world(database_url, limits=limits) as world:

        def list_as(headers: dict[str, str]) -> Callable[[int], Any]:
            return lambda _number: world.broker.get("/v1/linked-accounts", headers=headers)

        assert await statuses(20, list_as(world.as_user("alice"))) == {200: 5, 429: 15}
        assert await statuses(4, list_as(world.as_user("carol"))) == {200: 3, 429: 1}
        must_wait(await list_as(world.as_user("carol"))(0), "requests_per_owner")
        # The same subject of the same issuer is one user, whatever else the token says.
        other_claims = world.as_user("alice", email="other@acme.example")
        must_wait(await list_as(other_claims)(0), "requests_per_user")

        key = await world.create_key()
        services = await statuses(
            20, lambda _number: world.broker.get("/v1/owners/org_acme/linked-accounts", headers=world.as_service(key))
        )
        assert services == {200: 6, 429: 14}
        other = await world.broker.get("/v1/owners/org_acme/linked-accounts", headers=world.as_service())
        assert other.status_code == 200


async def test_refused_credentials_are_limited_by_address_and_good_ones_never_are(database_url: str) -> None:
    async with open_world(database_url, limits={"unauthenticated_per_address": "5/hour"}) as world:
        path = "/v1/linked-accounts"
        # Good credentials and missing ones do not count, however many there are.
        for headers in (world.as_user("alice"), {}) * 10:
            await world.broker.get(path, headers=headers)
        assert await statuses(40, lambda _n: world.broker.get(path, headers=FORGED)) == {401: 5, 429: 35}
        must_wait(await world.broker.get(path, headers=FORGED), "unauthenticated_per_address")
        # Browser and service routes count together.
        bad_key = {"authorization": "Bearer sk_AAAAAAAAAAAA_notakey"}
        must_wait(
            await world.broker.get("/v1/owners/o/linked-accounts", headers=bad_key), "unauthenticated_per_address"
        )
        # An office has one address: whoever is genuine there is served.
        assert (await world.broker.get(path, headers=world.as_user("bob"))).status_code == 200
        owned = await world.broker.get("/v1/owners/org_acme/linked-accounts", headers=world.as_service())
        assert owned.status_code == 200


_OF_A_PAGE = sa.and_(connect_sessions.c.owner_id == "org_acme", connect_sessions.c.channel == Channel.BROWSER)


@pytest.mark.both_databases
async def test_the_sessions_an_owner_has_open_at_once_are_counted_exactly(database_url: str) -> None:
    limits = {"live_sessions_per_owner": 6, "live_auth_links_per_owner": 4}
    # A busy machine's PostgreSQL may take seconds to let all of them in.
    async with open_world(database_url, limits=limits, database={"pool_timeout_seconds": 60}) as world:

        def ask(number: int) -> Any:
            if number % 3 == 2:
                return world.broker.post("/v1/owners/org_acme/auth-links", headers=world.as_service())
            return minting(world, ("alice", "carol")[number % 3])(number)

        # Eight ask for a link, sixteen for a session: what is full for the ones is not for the others.
        assert await statuses(24, ask) == {201: 10, 429: 14}
        refused = await minting(world, "alice")(0)
        assert "6 sessions of this owner are open at once" in refused.json()["detail"]
        assert 1 <= int(refused.headers["retry-after"]) <= 432_000
        assert (await minting(world, "bob")(0)).status_code == 201
        async with world.runtime.database.transaction() as connection:
            one = sa.select(connect_sessions.c.id).where(_OF_A_PAGE).limit(1)
            await connection.execute(
                sa.update(connect_sessions)
                .where(connect_sessions.c.id.in_(one))
                .values(expires_at=world.clock.now() - timedelta(seconds=1))
            )
        assert await statuses(5, minting(world, "alice")) == {201: 1, 429: 4}


async def test_limits_go_on_when_redis_goes_away(database_url: str, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis_server:
        limits = {"mint_per_user": "4/hour", "storage_url": redis_server.url, "storage_timeout_seconds": 10}
        async with open_world(database_url, limits=limits) as world:
            assert await statuses(10, minting(world, "alice")) == {201: 4, 429: 6}
            redis_server.stop()
            assert await statuses(10, minting(world, "alice")) == {201: 4, 429: 6}


@pytest.mark.both_databases
async def test_a_spent_budget_is_a_503_with_a_time_to_come_back_and_nothing_is_sent(database_url: str) -> None:
    async with open_world(
        database_url, stackone={"requests_per_minute": 10, **PATIENT}, sync={"enabled": False}
    ) as world:
        assert await statuses(25, minting_for_many(world)) == {201: 10, 503: 15}
        assert len(await world.received("POST", "/connect_sessions")) == 10
        refused = await minting_for_many(world)(26)
        assert 50 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["detail"] == "the broker has used up its calls to StackOne for the moment"
        async with world.runtime.database.reading() as connection:
            found = await connection.execute(sa.select(connect_sessions.c.status))
            assert Counter(found.scalars()) == {Status.PENDING: 10, Status.FAILED: 16}


@pytest.mark.both_databases
async def test_a_sweep_that_waits_leaves_room_for_minting(database_url: str) -> None:
    async with open_world(
        database_url, stackone={"requests_per_minute": 20, **PATIENT}, sync={"enabled": False}
    ) as world:
        stackone: StackOneClient = world.runtime.stackone
        for _ in range(8):
            await stackone.list_page(page=1, page_size=10, priority=Priority.SWEEP)
        waiting = asyncio.create_task(stackone.list_page(page=1, page_size=10, priority=Priority.SWEEP))
        assert await statuses(12, minting_for_many(world)) == {201: 12}
        assert not waiting.done()
        waiting.cancel()
        assert len(await world.received("GET", "/accounts")) == 8
