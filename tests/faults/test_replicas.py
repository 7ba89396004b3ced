"""Four replicas on one PostgreSQL, eight writers against them, and a reader of the feed who counts.

Three seconds in the small profile; BROKER_REPLICA_SECONDS=600 goes on for ten minutes.
"""

import asyncio
import collections
import json
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.errors import AppError
from app.identity.caller import Owner
from app.linked_accounts.confirm import confirm_account
from app.linked_accounts.feed import read_feed
from app.runtime import Externals, Runtime, open_runtime
from app.stackone.webhook import AccountEvent, Delivery
from app.sync.inbox import record_hint
from app.sync.refresh import refresh_due
from app.sync.sweep import run_sweep
from sandbox.stackone.accounts import LinkOrder
from tests.support.databases import PostgresqlDatabases
from tests.support.waiting import eventually
from tests.support.world import NoTransactionTransport, World, open_world

_SECONDS = float(os.environ.get("BROKER_REPLICA_SECONDS", "3"))
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(_SECONDS + 120)]


@pytest.fixture
def postgresql_url(postgresql_databases: PostgresqlDatabases) -> Iterator[str]:
    """Make a fresh PostgreSQL database."""
    url = postgresql_databases.create()
    yield url
    postgresql_databases.give_back(url)


@dataclass
class Watched(httpx2.AsyncBaseTransport):
    """The wire of all replicas, watching who is on it at the same time."""

    wire: httpx2.AsyncBaseTransport = field(default_factory=NoTransactionTransport)
    busy: collections.Counter[str] = field(default_factory=collections.Counter)
    most: collections.Counter[str] = field(default_factory=collections.Counter)
    calls: int = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        path = request.url.path
        self.calls += 1
        self.busy[path] += 1
        self.most[path] = max(self.most[path], self.busy[path])
        try:
            return await self.wire.handle_async_request(request)
        finally:
            self.busy[path] -= 1

    async def aclose(self) -> None:
        """Close the wire: they stop together."""
        await self.wire.aclose()


async def replicas(world: World, watched: Watched, stack: AsyncExitStack) -> list[Runtime]:
    """Open four replicas with pools and clocks of their own."""
    externals = Externals(stackone_transport=watched)
    return [await stack.enter_async_context(open_runtime(world.settings, externals)) for _ in range(4)]


async def going(until: float) -> AsyncIterator[None]:
    while time.monotonic() < until:
        yield


async def test_four_replicas_and_eight_writers(postgresql_url: str) -> None:  # noqa: C901, PLR0915  one scene with many players
    watched = Watched()
    chance = random.Random(4)  # noqa: S311  no secret
    swept = failures = 0
    async with (
        open_world(
            postgresql_url,
            webhooks=False,
            sync={"enabled": False, "sweep_page_size": 20, "sweep_interval_seconds": 0, "batch": 10},
            stackone={"requests_per_minute": 100_000, "breaker_failures": 1000},
            # Who waits for a connection waits for others' work, however busy the machine is; a deadlock fails at once.
            database={"pool_size": 5, "pool_timeout_seconds": 60},
        ) as world,
        AsyncExitStack() as stack,
    ):
        runtimes = await replicas(world, watched, stack)
        until = time.monotonic() + _SECONDS
        # Not through the switch: what is on trial is the broker, not a client beside it.
        order = LinkOrder(provider="bamboohr", origin_owner_id="org_acme", origin_owner_name="Acme Inc", multiple=True)
        ids = [await world.link("alice") for _ in range(30)]

        async def refresh(runtime: Runtime) -> None:
            async for _ in going(until):
                if not await refresh_due(runtime):
                    await asyncio.sleep(0.005)

        async def sweep(runtime: Runtime) -> None:
            nonlocal swept
            async for _ in going(until):
                done = await run_sweep(runtime, by="test", max_removal_percent=100)
                swept += done is not None
                await asyncio.sleep(0.01)

        async def write(number: int) -> None:
            nonlocal failures
            async for _ in going(until):
                runtime = chance.choice(runtimes)
                slot = chance.randrange(len(ids))
                account_id = ids[slot]
                account = world.project.accounts.find(account_id)
                try:
                    if account is None or chance.random() < 0.05:
                        if account is not None:
                            world.project.accounts.delete(account_id)
                        ids[slot] = world.project.accounts.link(order).id
                    elif chance.random() < 0.2:
                        owner = Owner("org_acme", "Acme Inc", None, "user:s", {})
                        await confirm_account(runtime, owner, account_id)
                    else:
                        world.project.accounts.change(account_id, {"label": f"{number}-{time.monotonic_ns()}"})
                        event = AccountEvent(event="account.updated", account_id=account_id)
                        digest = chance.randbytes(32)
                        await record_hint(runtime, Delivery(digest, 0, event))
                except AppError as error:
                    failures += error.status == 503
                await asyncio.sleep(0)

        seen: list[int] = []

        async def consume() -> None:
            while time.monotonic() < until + 1:
                async with runtimes[0].database.reading() as connection:
                    entries = await read_feed(connection, after=seen[-1] if seen else 0, limit=200)
                seen.extend(entry.position for entry in entries)
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as tasks:
            for runtime in runtimes:
                tasks.create_task(refresh(runtime))
                tasks.create_task(sweep(runtime))
            for number in range(8):
                tasks.create_task(write(number))
            tasks.create_task(consume())

        assert failures == 0, "a deadlock, or a database that could not be had"
        assert watched.most["/accounts"] == 1, "two sweepers at a time"
        assert seen == list(range(1, len(seen) + 1)), "the feed has a gap or a repeat"
        assert swept > 0

        async def settled() -> bool:
            return await refresh_due(runtimes[1]) == 0

        await eventually(settled, within=20)
        await run_sweep(runtimes[2], by="test", max_removal_percent=100)
        listed = await world.broker.get("/v1/owners/org_acme/linked-accounts?limit=200", headers=world.as_service())
        shown = {account["account_id"]: account["label"] for account in listed.json()["data"]}
        assert shown == {account.id: account.label for account in world.project.accounts}
        told(seen=len(seen), sweeps=swept, calls=watched.calls)


def told(**figures: Any) -> None:
    """Write the figures down where somebody asked for them."""
    if file := os.environ.get("BROKER_REPLICA_REPORT"):
        with Path(file).open("a") as report:
            report.write(json.dumps({"seconds": _SECONDS, **figures}) + "\n")


# A busy machine makes the emulator slow, and a call that ran out of time is rightly made again.
_PATIENT = {"timeout_seconds": 30, "total_timeout_seconds": 60}


async def test_a_due_row_is_read_once_however_many_look(postgresql_url: str) -> None:
    watched = Watched()
    async with (
        open_world(postgresql_url, webhooks=False, sync={"enabled": False, "batch": 5}, stackone=_PATIENT) as world,
        AsyncExitStack() as stack,
    ):
        runtimes = await replicas(world, watched, stack)
        ids = [await world.link("alice") for _ in range(60)]
        for account_id in ids:
            event = AccountEvent(event="account.created", account_id=account_id)
            await record_hint(runtimes[0], Delivery(account_id.encode().ljust(32, b"-"), 0, event))

        async def work(runtime: Runtime) -> None:
            while await refresh_due(runtime):
                pass

        await asyncio.gather(*(work(runtime) for runtime in runtimes))
        assert watched.calls == len(ids)
        assert set(watched.most.values()) == {1}
