"""Upkeep: what has to happen to the ledger although nobody asks. One replica at a time does it, under a lease."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog

from app.connect_sessions.resolve import forget_sessions, settle_ended_sessions, settle_open_sessions
from app.db.database import counter_value, raise_counter
from app.db.leases import Lease, held, holding
from app.linked_accounts.feed import read_feed
from app.owners.erasure import carry_on, pending_erasures
from app.owners.traces import forget_hints
from app.runtime import Runtime
from app.stackone.budget import Use

logger = structlog.get_logger(__name__)

_LEASE = "upkeep"
_LEASE_SECONDS = 60.0
_EVERY_SECONDS = 10.0
_BATCH = 500
# How far into the change feed sessions have been settled.
_CURSOR = "settled_sessions"


@dataclass
class Upkeep:
    """The upkeep loop of one process."""

    runtime: Runtime

    async def run_forever(self) -> None:
        """Do the rounds until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(_EVERY_SECONDS)

    async def run_once(self) -> bool:
        """Do one round; return False if another process is at it."""
        holder = self.runtime.new_id("up")
        async with holding(self.runtime.database, _LEASE, holder, seconds=_LEASE_SECONDS) as lease:
            if lease is None:
                return False
            await self._settle(lease)
            await self._forget(lease)
            async with self.runtime.database.reading() as connection:
                pending = await pending_erasures(connection)
            for erasure in pending:
                await carry_on(self.runtime, erasure, use=Use.REFRESH)
        return True

    async def _settle(self, lease: Lease) -> None:
        """Settle the sessions of owners whom the change feed has news about, and those that have ended."""
        more = True
        while more:
            async with self.runtime.database.transaction() as connection:
                await held(connection, lease)
                after = await counter_value(connection, _CURSOR)
                entries = await read_feed(connection, after=after, limit=_BATCH)
                owner_ids = sorted({entry.owner_id for entry in entries if entry.owner_id is not None})
                now = self.runtime.clock.now()
                await settle_open_sessions(connection, owner_ids, now=now)
                ended = await settle_ended_sessions(connection, now=now, limit=_BATCH)
                if entries:
                    await raise_counter(connection, _CURSOR, entries[-1].position)
            more = len(entries) == _BATCH or ended == _BATCH

    async def _forget(self, lease: Lease) -> None:
        settings = self.runtime.settings
        more = True
        while more:
            async with self.runtime.database.transaction() as connection:
                await held(connection, lease)
                now = self.runtime.clock.now()
                sessions = await forget_sessions(
                    connection, now=now, retention=timedelta(days=settings.sessions.retention_days), limit=_BATCH
                )
                hints = await forget_hints(
                    connection, before=now - timedelta(days=settings.sync.hint_retention_days), limit=_BATCH
                )
            if sessions or hints:
                logger.info("retention", sessions=sessions, hints=hints)
            more = _BATCH in (sessions, hints)
