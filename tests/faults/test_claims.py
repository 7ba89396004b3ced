"""Claims and marks: news that comes during a read causes another one, and a claim that ran out is not acted on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
import sqlalchemy as sa

from app.db.database import Database
from app.linked_accounts import due
from app.linked_accounts.store import count_due_of_all_owners, lock_in_order
from app.linked_accounts.tables import linked_accounts
from app.push import outbox
from app.push.tables import push_deliveries, push_destinations
from app.stackone.webhook import AccountEvent, Delivery
from app.sync.inbox import record_hint
from app.sync.refresh import refresh_due
from app.sync.sweep import run_sweep
from tests.support.databases import stored_rows
from tests.support.waiting import eventually
from tests.support.wires import Gate
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


class MovedClock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        """Begin now."""
        self.passed = 0.0
        self._began = datetime.now(UTC)

    def now(self) -> datetime:
        """Return what the clock shows."""
        return self._began + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        """Return seconds since the beginning."""
        return self.passed


@dataclass
class Scene:
    """A world in which nothing runs by itself, with a hand on its wire and its clock."""

    world: World
    gate: Gate
    clock: MovedClock

    async def hint(self, account_id: str) -> None:
        """Mark an account due, as an event does."""
        async with self.world.runtime.database.transaction() as connection:
            await due.mark_due(connection, account_id, now=self.clock.now())

    async def waiting(self) -> int:
        """Return how many accounts are due."""
        async with self.world.runtime.database.reading() as connection:
            return await count_due_of_all_owners(connection)

    async def label(self, account_id: str) -> object:
        """Return what the store has for the account's label."""
        answer = await self.world.broker.get(f"/v1/accounts/{account_id}", headers=self.world.as_service())
        return answer.json().get("label")


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    """Open a scene."""
    gates: list[Gate] = []

    def gated(wire: httpx2.AsyncBaseTransport) -> Gate:
        gates.append(Gate(wire))
        return gates[0]

    clock = MovedClock()
    settings = {"enabled": False, "concurrency": 1, "claim_seconds": 30}
    async with open_world(database_url, webhooks=False, clock=clock, stackone_wire=gated, sync=settings) as world:
        yield Scene(world, gates[0], clock)


async def test_news_that_comes_during_a_read_causes_another(scene: Scene) -> None:
    account_id = await scene.world.link("alice", label="before")
    await scene.hint(account_id)
    scene.gate.hold = "after"
    first = asyncio.create_task(refresh_due(scene.world.runtime))
    await scene.gate.holding.wait()
    await scene.world.switch("PATCH", f"/accounts/{account_id}", {"label": "after"})
    await scene.hint(account_id)
    assert await refresh_due(scene.world.runtime) == 0, "it is being read: nobody else may claim it"
    scene.gate.release()
    assert await first == 1
    assert (await scene.label(account_id), await scene.waiting()) == ("before", 1)
    assert await refresh_due(scene.world.runtime) == 1
    assert (await scene.label(account_id), await scene.waiting()) == ("after", 0)


async def test_news_that_is_being_written_as_a_read_is_applied_causes_another(scene: Scene) -> None:
    """The row is still as it was seen when the write begins, and has moved when it gets the lock."""
    database = scene.world.runtime.database
    if database.dialect == "sqlite":
        pytest.skip("has one writer")
    account_id = await scene.world.link("alice", label="before")
    await scene.hint(account_id)
    scene.gate.hold = "after"
    first = asyncio.create_task(refresh_due(scene.world.runtime))
    await scene.gate.holding.wait()
    await scene.world.switch("PATCH", f"/accounts/{account_id}", {"label": "after"})

    writing, may_commit = asyncio.Event(), asyncio.Event()

    async def hint() -> None:
        async with database.transaction() as connection:
            await due.mark_due(connection, account_id, now=scene.clock.now())
            writing.set()
            await may_commit.wait()

    hinted = asyncio.create_task(hint())
    await writing.wait()
    scene.gate.release()
    await waits_for_locks(database, 1)
    may_commit.set()
    await asyncio.gather(first, hinted)
    assert (await scene.label(account_id), await scene.waiting()) == ("before", 1)
    assert await refresh_due(scene.world.runtime) == 1
    assert (await scene.label(account_id), await scene.waiting()) == ("after", 0)


async def test_a_page_of_a_listing_and_a_group_of_events_never_wait_for_each_other(scene: Scene) -> None:
    """One makes a row and locks another, the other locks both: whoever holds the second must have had the first."""
    database = scene.world.runtime.database
    if database.dialect == "sqlite":
        pytest.skip("has one writer")
    ids = [await scene.world.link("alice", multiple=True) for _ in range(2)]
    async with database.reading() as connection:
        order = sa.text("SELECT id FROM unnest(CAST(:ids AS text[])) AS id ORDER BY id")
        first, second = (await connection.execute(order, {"ids": ids})).scalars()
    await scene.world.broker.post(f"/v1/linked-accounts/{first}/confirm", headers=scene.world.as_user("alice"))

    def event(account_id: str) -> Delivery:
        event = AccountEvent(event="account.updated", account_id=account_id)
        return Delivery(account_id.encode().ljust(32, b"-"), 0, event)

    hints = [record_hint(scene.world.runtime, event(account_id)) for account_id in (first, second)]
    locked, may_commit = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with database.transaction() as connection:
            await lock_in_order(connection, linked_accounts.c.account_id == first)
            locked.set()
            await may_commit.wait()

    holding = asyncio.create_task(hold())
    await locked.wait()
    hinting = asyncio.gather(*hints)
    await waits_for_locks(database, 1)
    sweeping = asyncio.create_task(run_sweep(scene.world.runtime, by="test"))
    await waits_for_locks(database, 2)
    may_commit.set()
    await asyncio.gather(holding, hinting, sweeping)
    assert scene.world.runtime.metrics.registry.get_sample_value(
        "broker_database_failures_total", {"cause": "conflict"}
    ) in {None, 0}


async def waits_for_locks(database: Database, count: int) -> None:
    """Wait until so many connections wait for a lock."""

    async def do() -> bool:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with database.reading() as connection:
            return int(await connection.scalar(sa.text(waits)) or 0) == count

    await eventually(do)


async def test_a_claim_that_ran_out_before_its_turn_is_left_to_the_next(scene: Scene) -> None:
    ids = [await scene.world.link("alice", multiple=True) for _ in range(2)]
    for account_id in ids:
        await scene.hint(account_id)
    scene.gate.hold = "after"
    slow = asyncio.create_task(refresh_due(scene.world.runtime))
    await scene.gate.holding.wait()
    scene.clock.passed += 31
    scene.gate.release()
    assert await slow == 2
    reads = [len(await scene.world.received("GET", f"/accounts/{account_id}")) for account_id in ids]
    assert sorted(reads) == [0, 1]
    assert await scene.waiting() == 1
    assert await refresh_due(scene.world.runtime) == 1
    assert await scene.waiting() == 0


async def test_a_claim_of_a_process_that_died_is_taken_over_when_it_runs_out(scene: Scene) -> None:
    account_id = await scene.world.link("alice")
    await scene.hint(account_id)
    scene.gate.hold = "before"
    dying = asyncio.create_task(refresh_due(scene.world.runtime))
    await scene.gate.holding.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert await refresh_due(scene.world.runtime) == 0
    scene.clock.passed += 31
    assert await refresh_due(scene.world.runtime) == 1
    assert await scene.waiting() == 0


async def test_news_that_comes_during_a_read_that_fails_does_not_wait_for_the_backoff(scene: Scene) -> None:
    account_id = await scene.world.link("alice", label="now")
    await scene.hint(account_id)
    await scene.world.switch("POST", "/faults", {"path": "/accounts", "status": 404, "shape": "gateway", "times": None})
    scene.gate.hold = "after"
    first = asyncio.create_task(refresh_due(scene.world.runtime))
    await scene.gate.holding.wait()
    await scene.hint(account_id)
    scene.gate.release()
    assert await first == 1
    await scene.world.switch("DELETE", "/faults")
    # No time has passed on this clock, and the failure alone would have it wait.
    assert await refresh_due(scene.world.runtime) == 1
    assert (await scene.label(account_id), await scene.waiting()) == ("now", 0)


async def test_a_delivery_that_somebody_else_has_tried_since_is_left_to_them(scene: Scene) -> None:
    now = scene.clock.now()
    claimed = timedelta(seconds=10)
    async with scene.world.runtime.database.transaction() as connection:
        await connection.execute(sa.insert(push_destinations).values(name="hook", position=1))
        delivery = {"destination": "hook", "position": 1, "account_id": "a", "state": "pending", "due_at": now}
        await connection.execute(sa.insert(push_deliveries).values(delivery))

    async def claim(at: datetime) -> outbox.Delivery:
        async with scene.world.runtime.database.transaction() as connection:
            [delivery] = await outbox.claim(
                connection, "hook", now=at, claim_for=claimed, longest_wait=timedelta(hours=1), limit=9
            )
        return delivery

    late = await claim(now)
    other = await claim(now + timedelta(seconds=11))
    async with scene.world.runtime.database.transaction() as connection:
        await outbox.record_failure(connection, other, failure="theirs", retry_at=now + timedelta(seconds=99))
    async with scene.world.runtime.database.transaction() as connection:
        await outbox.record_failure(connection, late, failure="mine", retry_at=None)
        await outbox.record_delivered(connection, late)
    async with scene.world.runtime.database.reading() as connection:
        [row] = await stored_rows(connection, push_deliveries)
    assert (row["state"], row["attempts"], row["failure"]) == ("pending", 1, "theirs")
    assert row["due_at"] == now + timedelta(seconds=99)
