"""Refresh: read due accounts at StackOne and apply what it says. Runs in every process."""

import asyncio
from datetime import timedelta

import structlog

from app.errors import AppError
from app.linked_accounts import due
from app.linked_accounts.apply import apply_observation
from app.linked_accounts.changes import Source
from app.linked_accounts.decide import UNRESOLVED, Observation
from app.linked_accounts.disconnect import Disconnected, carry_out
from app.linked_accounts.due import DueAccount
from app.runtime import Runtime
from app.stackone.budget import Priority
from app.stackone.models import Account, AccountGone

logger = structlog.get_logger(__name__)

_OUTCOME_LABELS = {Disconnected.GONE: "gone", Disconnected.LOST: "lost", Disconnected.RESCHEDULED: "failed"}


async def refresh_due(runtime: Runtime) -> int:
    """Claim one batch of due accounts and refresh them; return how many there were.

    Raises Unavailable when the database is away; what StackOne does wrong only reschedules the account.
    """
    settings = runtime.settings.sync
    accounts = await due.claim_due(
        runtime.database,
        now=runtime.clock.now(),
        claim_for=timedelta(seconds=settings.claim_seconds),
        longest_wait=timedelta(seconds=settings.max_backoff_seconds),
        limit=settings.batch,
    )
    claimed_at = runtime.clock.monotonic()
    gate = asyncio.Semaphore(settings.concurrency)

    async def refresh_gated(account: DueAccount) -> None:
        async with gate:
            # A claim that ran out while it waited for its turn may be another process' by now.
            if runtime.clock.monotonic() - claimed_at < settings.claim_seconds:
                with runtime.traces.span("refresh"):
                    await refresh(runtime, account)

    async with asyncio.TaskGroup() as tasks:
        for account in accounts:
            tasks.create_task(refresh_gated(account))
    return len(accounts)


async def refresh(runtime: Runtime, account: DueAccount) -> None:
    """Read one claimed account and apply the answer, or give the row back to be tried later."""
    if account.row.disconnect_requested_by is not None:
        disconnected = await carry_out(runtime, account, priority=Priority.REFRESH)
        runtime.metrics.refreshes.labels(_OUTCOME_LABELS[disconnected]).inc()
        return
    found: Account | None
    try:
        found = await runtime.stackone.get_account(account.account_id, priority=Priority.REFRESH)
    except AccountGone:
        found = None
    except AppError as error:
        await _reschedule(runtime, account, error)
        return
    observation = Observation(account.account_id, found, account.ticket, account.marks)
    applied = await apply_observation(runtime, account.seen, observation, source=Source.REFRESH, actor="stackone")
    outcome = applied.decision.outcome
    runtime.metrics.refreshes.labels(outcome.value).inc()
    if outcome in UNRESOLVED:
        await _reschedule(runtime, account, None)


async def _reschedule(runtime: Runtime, account: DueAccount, error: AppError | None) -> None:
    wait = due.wait_after(account, error, settings=runtime.settings.sync, jitter=runtime.jitter)
    async with runtime.database.transaction() as connection:
        await due.reschedule(connection, account, until=runtime.clock.now() + wait)
    if error is not None:
        runtime.metrics.refreshes.labels("failed").inc()
        logger.warning(
            "account_refresh_failed", account_id=account.account_id, code=error.code, attempts=account.attempts + 1
        )
