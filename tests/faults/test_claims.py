"""Claims and marks: news that comes during a read causes another one, and a claim that ran out is not acted on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from app.linked_accounts import due
from app.linked_accounts.store import count_due_of_all_owners
from app.sync.refresh import refresh_due
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
