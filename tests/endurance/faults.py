"""What goes wrong in a soak, one thing at a time: StackOne, the database, the identity provider, Redis, clocks."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.endurance.load import Load
from tests.endurance.stand import ACCOUNTS, Stand
from tests.neighbours.postgresql import OwnPostgresql
from tests.support.redis_server import RedisServer

Block = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong while its block runs."""

    name: str
    block: Block
    recovery_seconds: float = 20
    """How long something may still be refused afterwards: the breaker waits for ten seconds."""


@dataclass
class Neighbours:
    """All that can go wrong, and chance, which is the same each time."""

    stand: Stand
    load: Load
    database: OwnPostgresql
    redis: RedisServer
    clocks: Sequence[Path]
    chance: random.Random

    def deck(self) -> list[Fault]:
        """Return every fault once, in the order of chance."""
        faults = [
            *self._of_stackone(),
            Fault("database: restarts", self._database_restarts),
            Fault("database: away", self._database_away),
            Fault("database: stands still", self._database_stands_still),
            Fault("database: ends every connection", self._database_cuts),
            # Keys that could not be fetched are tried again after half a minute.
            Fault("identity provider: away, with new keys", self._identity_provider_away, 45),
            Fault("Redis: away", self._redis_away),
            Fault("Redis: stands still", self._redis_stands_still),
            Fault("clock of a replica: two hours ahead", lambda: self._clock("+2h")),
            Fault("clock of a replica: two hours back", lambda: self._clock("-2h")),
        ]
        self.chance.shuffle(faults)
        return faults

    def _of_stackone(self) -> list[Fault]:
        kinds: Mapping[str, Mapping[str, Any]] = {
            "answers 503": {"status": 503},
            "hangs": {"hang": True},
            "takes three seconds": {"delay_ms": 3000},
            "limits the rate": {"status": 429, "headers": {"retry-after": 2}},
            "cuts answers off": {"cut": True},
            "sends web pages": {"status": 200, "shape": "html"},
            "is a gateway that knows no account": {"path": "/accounts", "status": 404, "shape": "gateway"},
        }
        faults = [Fault(f"StackOne: {name}", self._stackone(fault)) for name, fault in kinds.items()]
        return [*faults, Fault("StackOne: lists half of all", self._half_a_list)]

    def _stackone(self, fault: Mapping[str, Any]) -> Block:
        @asynccontextmanager
        async def block() -> AsyncIterator[None]:
            await self.stand.switch("POST", "/faults", {"path": "/", "times": None, **fault})
            try:
                yield
            finally:
                await self.stand.switch("DELETE", "/faults")

        return block

    @asynccontextmanager
    async def _half_a_list(self) -> AsyncIterator[None]:
        await self.stand.switch("POST", "/listing", {"end_early": ACCOUNTS // 2})
        try:
            yield
        finally:
            await self.stand.switch("POST", "/listing", {})

    @asynccontextmanager
    async def _database_restarts(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.database.stop)
        await asyncio.to_thread(self.database.start)
        yield

    @asynccontextmanager
    async def _database_away(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.database.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self.database.start)

    @asynccontextmanager
    async def _database_stands_still(self) -> AsyncIterator[None]:
        with self.database.paused():
            yield

    @asynccontextmanager
    async def _database_cuts(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.database.cut)
        yield

    @asynccontextmanager
    async def _identity_provider_away(self) -> AsyncIterator[None]:
        provider = self.stand.provider
        provider.faults.add({"path": "/", "times": None, "status": 503})
        provider.keys.rotate("RS256", keep_old=False)
        self.load.renew_tokens()
        try:
            yield
        finally:
            provider.faults.clear()

    @asynccontextmanager
    async def _redis_away(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.redis.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self.redis.start)

    @asynccontextmanager
    async def _redis_stands_still(self) -> AsyncIterator[None]:
        with self.redis.frozen():
            yield

    @asynccontextmanager
    async def _clock(self, offset: str) -> AsyncIterator[None]:
        clock = self.chance.choice(self.clocks)
        clock.write_text(f"{offset}\n")
        try:
            yield
        finally:
            clock.write_text("+0\n")
