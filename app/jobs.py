"""Everything that runs beside the requests of a process: what, how often, and what only one replica at a time does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from app.audit.entries import forget_entries
from app.connect_sessions.housekeeping import RESOLVED_UP_TO, forget_old, resolve_sessions
from app.db.counters import counter_value, raise_counter
from app.db.leases import Lease, held, holding
from app.db.schema_version import known_revisions, stored_schema
from app.errors import AppError
from app.gauges import begin_at_zero, read_gauges
from app.identity.service_keys.expiry import ending_keys
from app.identity.user_tokens.revocations import forget_revocations
from app.invitations.listing import forget_old_invitations, record_linked_invitations
from app.linked_accounts.feed import forget_changes
from app.linked_accounts.reminders import remind
from app.owners.erasure import carry_on_erasures
from app.push.deliver import open_sender, push_once
from app.push.outbox import told_up_to
from app.push.sender import Sender
from app.runtime import Runtime
from app.sync.refresh import refresh_due
from app.sync.sweep import sweep_if_due

logger = structlog.get_logger(__name__)

_PAUSE_AFTER_FAILURE_SECONDS = 1.0
_LEASE_SECONDS = 60.0
_IDLE_TIMES = 5
_FORGOTTEN_AT_ONCE = 500
_KEYS_WARNED_OF = "service_keys_warned_of"


@dataclass(frozen=True)
class Job:
    """Something that is done again and again; a round that did nothing is followed by a pause."""

    name: str
    round: Callable[[Runtime], Awaitable[int]]
    """Does one round and returns how much there was to do."""
    pause_seconds: float
    longest_pause_seconds: float = 0.0
    """Each round that did nothing doubles the pause up to this: an idle broker leaves its database alone. ADR 10."""
    wake: asyncio.Event | None = None
    """Ends the pause early, and what it has grown to."""


def jobs(runtime: Runtime, sender: Sender) -> Sequence[Job]:
    """List the jobs of a process. Those that only one replica may do hold a lease while they do it."""
    poll_seconds = runtime.settings.sync.poll_seconds
    return (
        Job("refresh", refresh_due, poll_seconds, _IDLE_TIMES * poll_seconds, wake=runtime.account_due),
        Job("gauges", read_gauges, 10.0),
        Job("sweep", sweep_if_due, 5.0, _IDLE_TIMES * 5.0, wake=runtime.sweep_requested),
        Job("housekeeping", keep_house, 10.0),
        Job("retention", apply_retention, 600.0),
        *(
            Job("push", partial(push_once, sender=sender, destination=destination), 1.0)
            for destination in runtime.settings.push.destinations
        ),
    )


async def forget_old_changes(runtime: Runtime, lease: Lease) -> None:
    """Remove changes that are older than their retention, except those that sessions or push have still to read."""
    days = runtime.settings.sync.change_retention_days
    more = days > 0
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            resolved = await counter_value(connection, RESOLVED_UP_TO)
            told = await told_up_to(connection, [one.name for one in runtime.settings.push.destinations])
            before = runtime.clock.now() - timedelta(days=days)
            up_to = resolved if told is None else min(resolved, told)
            forgotten = await forget_changes(connection, before=before, up_to=up_to, limit=_FORGOTTEN_AT_ONCE)
        if forgotten:
            logger.info("changes_forgotten", changes=forgotten)
        more = forgotten == _FORGOTTEN_AT_ONCE


async def warn_of_ending_keys(runtime: Runtime, lease: Lease) -> None:
    """Say in the log, once a day, which service keys end within two weeks: each would take its service with it."""
    async with runtime.database.transaction() as connection:
        await held(connection, lease)
        now = runtime.clock.now()
        today = now.toordinal()
        if await counter_value(connection, _KEYS_WARNED_OF) >= today:
            return
        ending = await ending_keys(connection, now)
        await raise_counter(connection, _KEYS_WARNED_OF, today)
    for key in ending:
        logger.warning(
            "service_key_ends_soon",
            key_id=key.key_id,
            name=key.name,
            expires_at=key.expires_at.isoformat(),
            remedy="broker service-keys rotate",
        )


async def forget_old_revocations(runtime: Runtime, lease: Lease) -> None:
    """Remove revocations of user tokens that no token is left of."""
    more = True
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            now = runtime.clock.now()
            more = await forget_revocations(connection, now=now, limit=_FORGOTTEN_AT_ONCE) == _FORGOTTEN_AT_ONCE


async def forget_old_audit_entries(runtime: Runtime, lease: Lease) -> None:
    """Remove audit entries that are older than their retention."""
    more = True
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            before = runtime.clock.now() - timedelta(days=runtime.settings.audit.retention_days)
            more = await forget_entries(connection, before=before, limit=_FORGOTTEN_AT_ONCE) == _FORGOTTEN_AT_ONCE


Task = Callable[[Runtime, Lease], Awaitable[None]]

# Each works in batches and checks the lease in each of them.
HOUSEKEEPING: Sequence[Task] = (resolve_sessions, remind, record_linked_invitations, carry_on_erasures)
RETENTION: Sequence[Task] = (
    forget_old,
    forget_old_invitations,
    forget_old_changes,
    forget_old_revocations,
    forget_old_audit_entries,
    warn_of_ending_keys,
)


async def keep_house(runtime: Runtime) -> int:
    """Carry on what requests have begun; return 0, or -1 if another replica does it."""
    return await _under_lease(runtime, "housekeeping", HOUSEKEEPING)


async def apply_retention(runtime: Runtime) -> int:
    """Remove what is older than its retention, and warn of keys near their end; return 0, or -1 like `keep_house`."""
    return await _under_lease(runtime, "retention", RETENTION)


async def _under_lease(runtime: Runtime, name: str, tasks: Sequence[Task]) -> int:
    async with holding(runtime.database, name, runtime.new_id("hk"), seconds=_LEASE_SECONDS) as lease:
        if lease is None:
            return -1
        for task in tasks:
            await task(runtime, lease)
    return 0


@asynccontextmanager
async def running_jobs(runtime: Runtime) -> AsyncIterator[None]:
    """Run every job while the block runs, from the moment when the database's schema fits this version."""
    async with AsyncExitStack() as stack:
        sender = open_sender(runtime)
        stack.push_async_callback(sender.close)
        begin_at_zero(runtime, [job.name for job in jobs(runtime, sender)])
        schema = asyncio.create_task(_schema_fits(runtime))
        stack.push_async_callback(cancelled, schema)
        for job in jobs(runtime, sender):
            stack.push_async_callback(cancelled, asyncio.create_task(_repeat_once_it_fits(job, runtime, schema)))
        yield


async def _schema_fits(runtime: Runtime) -> None:
    """Wait for `broker migrate`: new code may be started before it, and is then unready instead of failing."""
    told = None
    while True:
        try:
            async with runtime.database.reading() as connection:
                fit = (await connection.run_sync(stored_schema)).fit(known_revisions())
        except AppError:
            fit = None
        if fit is not None and fit.serves:
            return
        if fit is not told and fit is not None:
            logger.warning("jobs_wait_for_schema", schema=fit.value)
        told = fit
        await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)


async def _repeat_once_it_fits(job: Job, runtime: Runtime, schema: asyncio.Task[None]) -> None:
    await asyncio.shield(schema)
    await repeat(job, runtime)


async def repeat(job: Job, runtime: Runtime) -> None:
    """Repeat a job until it is cancelled: a database that was away for a minute must not stop it for good."""
    pause = job.pause_seconds
    while True:
        if job.wake is not None:
            # Before the round: work that is requested while it runs gets a round of its own.
            job.wake.clear()
        try:
            done = await job.round(runtime)
        except Exception as error:
            if (expected := _expected(error)) is not None:
                logger.warning("job_paused", job=job.name, code=expected.code)
            else:
                runtime.metrics.loop_failures.labels(job.name).inc()
                logger.exception("job_failed", job=job.name)
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
        else:
            if done > 0 or await _woken(job, pause):
                pause = job.pause_seconds
            else:
                pause = min(2 * pause, max(job.longest_pause_seconds, job.pause_seconds))


def _expected(error: BaseException) -> AppError | None:
    """Return what an external's failure is, also where several tasks of a round met it; None for a mistake of ours."""
    if isinstance(error, BaseExceptionGroup):
        parts = [_expected(part) for part in error.exceptions]
        return parts[0] if all(part is not None for part in parts) else None
    return error if isinstance(error, AppError) else None


async def _woken(job: Job, seconds: float) -> bool:
    """Wait, and tell whether the job was woken before the time was over."""
    if job.wake is None:
        await asyncio.sleep(seconds)
        return False
    try:
        async with asyncio.timeout(seconds):
            return await job.wake.wait()
    except TimeoutError:
        return False


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
