"""The stage on which convergence is played: a world that is wiped between plays, with hands on everything inside."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import sqlalchemy as sa

from app.db.counters import counters
from app.db.leases import leases
from app.db.tables import metadata
from app.linked_accounts.tables import linked_accounts
from app.logs import configure_logs
from app.runtime import Runtime
from app.sync.refresh import refresh_due
from app.sync.sweep import run_sweep
from tests.support.wires import Gate
from tests.support.world import World, open_world

SETTINGS: dict[str, Any] = {
    "webhooks": True,
    "sync": {
        "enabled": False,
        "backoff_seconds": 0.1,
        "max_backoff_seconds": 60,
        "claim_seconds": 5,
        "sweep_page_size": 3,
        "sweep_interval_seconds": 0,
    },
    "stackone": {
        "timeout_seconds": 0.25,
        "total_timeout_seconds": 0.3,
        "max_attempts": 1,
        "breaker_failures": 1000,
        "requests_per_minute": 100_000,
    },
    "limits": {
        "requests_per_user": "1000000/minute",
        "requests_per_owner": "1000000/minute",
        "requests_per_service": "1000000/minute",
    },
}
Shape = tuple[str | None, str | None, str | None, str | None]


class JumpyClock:
    """The machine's clock, set forward or back by whoever likes."""

    def __init__(self) -> None:
        """Begin right."""
        self.offset = timedelta(0)

    def now(self) -> datetime:
        """Return what the clock shows."""
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


class Stage:
    """A world and a second replica of the broker that only runs loops, on a clock of its own."""

    def __init__(self, database_url: str) -> None:
        """Open everything."""
        # Tens of thousands of steps: what goes right need not be told.
        configure_logs("CRITICAL")
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        opening = open_world(database_url, stackone_wire=self._stand_between, **SETTINGS)
        self.world: World = self.run(self._stack.enter_async_context(opening))
        self.clock = JumpyClock()
        self.tasks: list[asyncio.Task[Any]] = []
        self._headers = {user: self.world.as_user(user, expires_in=80_000) for user in ("alice", "bob")}

    def _stand_between(self, wire: httpx2.AsyncBaseTransport) -> Gate:
        self.gate = Gate(wire)
        return self.gate

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something to its end; what runs beside it goes on meanwhile."""
        return self._runner.run(work)

    def close(self) -> None:
        """Take everything down."""
        self.run(self._stack.aclose())
        self._runner.close()
        configure_logs("INFO")

    @property
    def loops(self) -> Runtime:
        """The runtime of the replica that runs the loops."""
        return replace(self.world.runtime, clock=self.clock)

    async def wipe(self) -> None:
        """Go back to the beginning."""
        await self.crash()
        project = self.world.project
        project.reset()
        project.webhooks.settings = replace(project.webhooks.settings, retry_delays=(0.01, 0.02), hold_seconds=0.02)
        self.clock.offset = timedelta(0)
        async with self.world.runtime.database.transaction() as connection:
            for table in reversed(metadata.sorted_tables):
                if table.name not in {"service_keys", counters.name}:
                    await connection.execute(sa.delete(table))

    async def crash(self) -> None:
        """End everything that is under way, wherever it is."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        self.gate.release()

    async def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin something and let it run beside what follows."""
        self.tasks.append(asyncio.create_task(work))
        await asyncio.sleep(0.002)

    async def ask(self, method: str, path: str, user: str) -> httpx2.Response:
        """Call the browser channel."""
        return await self.world.broker.request(method, path, headers=self._headers[user])

    async def refresh(self) -> int:
        """Have one batch of due accounts read."""
        return await refresh_due(self.loops)

    async def sweep(self) -> Any:
        """Sweep, whatever it removes."""
        return await run_sweep(self.loops, by="test", max_removal_percent=100, longest_pause=0.02)

    async def calm(self) -> None:
        """End all trouble: no faults, no delays, every answer in, every webhook out."""
        self.gate.release()
        project = self.world.project
        project.faults.clear()
        await self.world.switch("POST", "/lies", {})
        await self.world.switch("POST", "/listing", {})
        await self.world.switch("POST", "/webhooks", {"mode": "deliver"})
        assert await project.webhooks.settle(5)
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        # A sweeper that was cut off while it gave its lease back keeps it for half a minute, which pass here.
        async with self.world.runtime.database.transaction() as connection:
            await connection.execute(sa.update(leases).values(expires_at_ms=0))

    async def drain(self) -> None:
        """Refresh until nothing is due, with time for every backoff and every claim of a crashed reader."""
        for _ in range(60):
            async with self.world.runtime.database.reading() as connection:
                query = sa.select(sa.func.count()).where(
                    linked_accounts.c.refresh_due_at.is_not(None), linked_accounts.c.deleted_at.is_(None)
                )
                if not (await connection.execute(query)).scalar_one():
                    return
            self.clock.offset += timedelta(minutes=2)
            await self.refresh()
        message = "there is always something due"
        raise AssertionError(message)

    async def stored(self) -> dict[str, Shape]:
        """Return what the store shows, all owners together."""
        c = linked_accounts.c
        query = sa.select(c.account_id, c.owner_id, c.provider, c.status, c.label).where(
            c.deleted_at.is_(None), c.verified_at.is_not(None)
        )
        async with self.world.runtime.database.reading() as connection:
            return {row[0]: (row[1], row[2], row[3], row[4]) for row in await connection.execute(query)}

    def upstream(self) -> dict[str, Shape]:
        """Return what StackOne has."""
        return {
            account.id: (account.origin_owner_id, account.provider, account.status, str(account.label or "") or None)
            for account in self.world.project.accounts
        }
