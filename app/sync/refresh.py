"""Refresh: read due accounts at StackOne and apply what it says. Runs in every process."""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import AppError
from app.linked_accounts import due
from app.linked_accounts.apply import Reading, apply_readings
from app.linked_accounts.changes import Source
from app.linked_accounts.disconnect import Disconnector
from app.linked_accounts.due import Claim
from app.linked_accounts.store import count_due_of_all_owners
from app.runtime import Runtime
from app.stackone.budget import Use
from app.stackone.client import AccountGone
from app.stackone.models import Account

logger = structlog.get_logger(__name__)

_COUNT_SECONDS = 5.0


@dataclass
class Refresher:
    """The due-row loop of one process."""

    runtime: Runtime
    jitter: random.Random = field(default_factory=random.Random)
    _count_due_at: float = field(default=float("-inf"), init=False)

    async def run_forever(self) -> None:
        """Refresh due accounts until cancelled, at once when told of one and otherwise every poll interval."""
        settings = self.runtime.settings.sync
        while True:
            self.runtime.account_due.clear()
            handled = await self.run_once()
            if handled:
                continue
            try:
                async with asyncio.timeout(settings.poll_seconds):
                    await self.runtime.account_due.wait()
            except TimeoutError:
                continue

    async def run_once(self) -> int:
        """Claim one batch of due accounts and refresh them; return how many there were.

        Raises Unavailable when the database is away; what StackOne does wrong only puts the account off.
        """
        settings = self.runtime.settings.sync
        async with self.runtime.database.transaction() as connection:
            claims = await due.claim_due(
                connection,
                now=self.runtime.clock.now(),
                claim_for=timedelta(seconds=settings.claim_seconds),
                longest_wait=timedelta(seconds=settings.max_backoff_seconds),
                limit=settings.batch,
            )
            claimed_at = self.runtime.clock.monotonic()
            await self._count_due(connection, claimed_at)
        gate = asyncio.Semaphore(settings.concurrency)

        async def refresh_gated(claim: Claim) -> None:
            async with gate:
                # A claim that ran out while it waited for its turn may be another process' by now.
                if self.runtime.clock.monotonic() - claimed_at < settings.claim_seconds:
                    await self.refresh(claim)

        async with asyncio.TaskGroup() as tasks:
            for claim in claims:
                tasks.create_task(refresh_gated(claim))
        return len(claims)

    async def _count_due(self, connection: AsyncConnection, now: float) -> None:
        """Count what waits, now and then: a backlog that is worth a look takes a while to count."""
        if now >= self._count_due_at:
            self._count_due_at = now + _COUNT_SECONDS
            self.runtime.metrics.due.set(await count_due_of_all_owners(connection))

    async def refresh(self, claim: Claim) -> None:
        """Read one claimed account and apply the answer, or give the row back to be tried later."""
        if claim.disconnect_requested_by is not None:
            outcome = await self._disconnector().carry_out(claim, use=Use.REFRESH)
            self.runtime.metrics.refreshes.labels("failed" if outcome == "put_off" else outcome).inc()
            return
        account: Account | None
        try:
            account = await self.runtime.stackone.get_account(claim.account_id, use=Use.REFRESH)
        except AccountGone:
            account = None
        except AppError as error:
            await self._put_off(claim, error)
            return
        reading = Reading(claim.account_id, account, claim.ticket, claim.marks)
        async with self.runtime.database.transaction() as connection:
            decisions = await apply_readings(
                connection,
                [reading],
                source=Source.REFRESH,
                actor="stackone",
                now=self.runtime.clock.now(),
                metrics=self.runtime.metrics,
            )
        outcome = decisions[claim.account_id].outcome
        self.runtime.metrics.refreshes.labels(outcome).inc()
        if outcome in {"retry", "behind"}:
            await self._put_off(claim, None)

    async def _put_off(self, claim: Claim, error: AppError | None) -> None:
        wait = due.wait_after(claim, error, settings=self.runtime.settings.sync, jitter=self.jitter)
        async with self.runtime.database.transaction() as connection:
            await due.put_off(connection, claim, until=self.runtime.clock.now() + wait)
        if error is not None:
            self.runtime.metrics.refreshes.labels("failed").inc()
            logger.warning(
                "account_refresh_failed", account_id=claim.account_id, code=error.code, attempts=claim.attempts + 1
            )

    def _disconnector(self) -> Disconnector:
        runtime = self.runtime
        return Disconnector(
            database=runtime.database,
            stackone=runtime.stackone,
            clock=runtime.clock,
            metrics=runtime.metrics,
            settings=runtime.settings.sync,
            jitter=self.jitter,
        )
