"""Sweep: page through everything StackOne has and make the store equal to it.

Listed accounts are applied page by page. What a complete listing lacks is only suspected: each such account is read by
its id, and only StackOne's own "no such account" removes it. What the store has as a tombstone, or as another owner's,
and the listing shows is read by its id as well, since a listing may lag behind. The record of the sweep moves on in the
transaction of the work it stands for and under the lease's fence, so a crash costs at most one page and two sweepers
never mix.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeVar

import structlog

from app.db.leases import Lease, LeaseLost, held, holding
from app.errors import Unavailable, UpstreamRejected
from app.linked_accounts.apply import apply_observations
from app.linked_accounts.changes import Source, Witness
from app.linked_accounts.decide import Decision, Observation
from app.linked_accounts.removal_limit import RemovalLimit
from app.linked_accounts.store import count_known_of_all_owners, take_read_ticket
from app.runtime import Runtime
from app.stackone.budget import Priority
from app.stackone.listing import Listing
from app.stackone.models import Account, AccountGone, AccountPage
from app.sync import plan, runs
from app.sync import suspects as swept
from app.sync.runs import Sweep
from app.sync.tables import SweepState

logger = structlog.get_logger(__name__)

LEASE: Final = "sweep"
LEASE_SECONDS: Final = 30.0
_TRIES: Final = 4
_PAUSE_AFTER_FAILURE_SECONDS: Final = 30.0
_LONGEST_PAUSE: Final = 60.0
_SUSPECTS_AT_ONCE: Final = 25
_INCOMPLETE: Final = (
    "StackOne's listing has no recognisable end, or holes (see the log for listing_rows_unreadable and"
    " listing_page_refused): what it shows was taken in, and nothing was removed"
)
_UNREAD: Final = (
    "StackOne would not say what became of {} account(s) that its listing lacks: they were left as they are"
)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Ahead:
    """What a sweep has still before it, as far as that can be known, for who watches it."""

    known: int
    """Accounts in the store when it began: StackOne gives no total, and this is the best guess; 0 for a first fill."""
    suspects_read: int
    """How many of the sweep's suspects have been read."""
    pause: str | None = None
    """Why it waits just now."""


Listener = Callable[[Sweep, Ahead], None]


@dataclass
class _Run:
    """A sweep that this process carries out, as far as it is."""

    runtime: Runtime
    lease: Lease
    sweep: Sweep
    listener: Listener | None
    longest_pause: float
    known: int = 0
    """Accounts in the store when the run began."""
    suspects_read: int = 0
    unread: int = 0
    """Suspects of which StackOne would not say what became of them."""


async def run_sweep(
    runtime: Runtime,
    *,
    by: str,
    max_removal_percent: float | None = None,
    listener: Listener | None = None,
    longest_pause: float = _LONGEST_PAUSE,
) -> Sweep | None:
    """Sweep once, or take up an interrupted sweep; return None if another process is sweeping.

    `longest_pause` bounds, in seconds, how long one failed call is waited out before it is made again.
    Raises Unavailable when StackOne or the database stays away; the sweep then stays unfinished, to be taken up again.
    Raises UpstreamRejected when StackOne refuses the listing altogether.
    """
    async with holding(runtime.database, LEASE, runtime.new_id("sw"), seconds=LEASE_SECONDS) as lease:
        if lease is None:
            return None
        async with runtime.database.transaction() as connection:
            sweep = await runs.begin(
                connection, lease, by=by, now=runtime.clock.now(), max_removal_percent=max_removal_percent
            )
        run = _Run(runtime, lease, sweep, listener, longest_pause)
        try:
            await _carry_out(run)
        except UpstreamRejected as error:
            await _finish(run, SweepState.FAILED, error.detail)
            runtime.metrics.sweeps.labels(SweepState.FAILED.value).inc()
            raise
        _report(runtime, run.sweep)
        return run.sweep


async def request_sweep(runtime: Runtime, *, by: str, max_removal_percent: float | None) -> tuple[Sweep, bool]:
    """Ask for a sweep; return it, or the unfinished one in its place, and whether it is new."""
    async with runtime.database.transaction() as connection:
        sweep, started = await runs.request(
            connection, by=by, now=runtime.clock.now(), max_removal_percent=max_removal_percent
        )
    runtime.sweep_requested.set()
    return sweep, started


async def sweep_if_due(runtime: Runtime) -> int:
    """Sweep if one is requested, was interrupted, or is due by the clock; return 0, since the next is not due at once.

    Runs in every process, so that any replica may sweep; the lease lets one of them do it.
    """
    try:
        if await is_due(runtime):
            await run_sweep(runtime, by="timer")
    except (Unavailable, UpstreamRejected) as error:
        logger.warning("sweep_interrupted", code=error.code, detail=error.detail)
        await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
    return 0


async def is_due(runtime: Runtime) -> bool:
    """Tell whether a sweep waits, was interrupted, or should begin by the clock."""
    async with runtime.database.reading() as connection:
        if await runs.unfinished(connection) is not None:
            return True
        last = await runs.recent(connection, 1)
    interval = timedelta(seconds=runtime.settings.sync.sweep_interval_seconds)
    return plan.is_time(last[0].finished_at if last else None, runtime.clock.now(), interval=interval)


async def _carry_out(run: _Run) -> None:
    database, sync = run.runtime.database, run.runtime.settings.sync
    async with database.reading() as connection:
        run.known = await count_known_of_all_owners(connection)
    # A listing that had a hole when its sweeper died is not read on: it can no longer become complete.
    if run.sweep.complete is None:
        await _take_in_listing(run)
    sweep = run.sweep
    if not sweep.complete:
        await _finish(run, SweepState.STOPPED, _INCOMPLETE)
        return
    async with database.reading() as connection:
        # As it was when the sweep began: what it has removed before a crash counts on both sides of the limit.
        left, suspects = await swept.count_known_and_suspects(connection, sweep.id, sweep.start_ticket or 0)
    known = left + sweep.removed
    percent = sync.sweep_max_removal_percent if sweep.max_removal_percent is None else sweep.max_removal_percent
    removal_limit = RemovalLimit(percent, sync.sweep_removal_floor)
    if not removal_limit.allows(known=known, suspects=suspects + sweep.removed):
        await _finish(run, SweepState.STOPPED, removal_limit.advice(known=known, suspects=suspects))
        return
    await _record(run, replace(sweep, suspects=suspects))
    _tell(run, run.sweep)
    if suspects:
        async with database.reading() as connection:
            ids = await swept.all_suspects(connection, sweep.id, sweep.start_ticket or 0)
        # Those up to the last one have been read before a crash.
        left_to_read = [account_id for account_id in ids if account_id > (sweep.last_suspect or "")]
        for first in range(0, len(left_to_read), _SUSPECTS_AT_ONCE):
            await _read_suspects(run, left_to_read[first : first + _SUSPECTS_AT_ONCE])
    if run.unread:
        await _finish(run, SweepState.STOPPED, _UNREAD.format(run.unread))
    else:
        await _finish(run, SweepState.DONE, None)


async def _take_in_listing(run: _Run) -> None:
    """Read StackOne's listing from where it was left, and apply each page."""
    page_size = run.runtime.settings.sync.sweep_page_size

    async def read_page(number: int) -> AccountPage:
        return await _patiently(
            run,
            lambda: run.runtime.stackone.list_page(page=number, page_size=page_size, priority=Priority.SWEEP),
        )

    listing = Listing(read_page, page_size=page_size, next_page=run.sweep.next_page)
    while not listing.is_over:
        with run.runtime.traces.span("sweep page"):
            ticket = await _take_ticket(run)
            page = await listing.read()
            await _take_in_page(run, listing, page, ticket)


async def _take_in_page(run: _Run, listing: Listing, page: AccountPage, ticket: int) -> None:
    """Apply a page in parts: a StackOne that knows no pages answers with all of its accounts at once."""
    listed = {account.id: account for account in page.accounts}
    contradicted = plan.contradicted(page.accounts)
    parts = plan.parted(listed)
    new = 0
    for part in parts:
        again = await _read_again(run, part, contradicted & part.keys())
        new += await _take_in_part(run, listing if part is parts[-1] else None, part, again, ticket, new)


async def _take_in_part(
    run: _Run,
    ended: Listing | None,
    listed: Mapping[str, Account],
    again: Mapping[str, Observation | None],
    ticket: int,
    before: int,
) -> int:
    """Apply a part of a page; with the last one, of the listing that has `ended` a page, the page is done with."""
    async with run.runtime.database.transaction() as connection:
        known = await swept.already_listed(connection, run.sweep.id, listed)
        new = [account for account_id, account in listed.items() if account_id not in known]
        sweep = run.sweep
        if ended is not None:
            ended.passed(new=before + len(new))
            sweep = replace(sweep, next_page=ended.next_page, complete=ended.complete)
        await held(connection, run.lease)

        async def record(decisions: Mapping[str, Decision]) -> None:
            nonlocal sweep
            sweep = plan.counted(sweep, decisions, listed=len(new))
            await runs.record(connection, run.lease, sweep)

        observations = [again.get(account.id, Observation(account.id, account, ticket)) for account in new]
        await apply_observations(
            connection,
            [observation for observation in observations if observation is not None],
            source=Source.SWEEP,
            actor="stackone",
            now=run.runtime.clock.now(),
            metrics=run.runtime.metrics,
            settings=run.runtime.settings.sync,
            swept_in=sweep.id,
            also=record,
        )
    _tell(run, sweep)
    return len(new)


async def _read_again(
    run: _Run, listed: Mapping[str, Account], contradicted: Collection[str]
) -> dict[str, Observation | None]:
    """Read by their ids those of which a list alone is not believed; None stands for what would not be read.

    Those are what the store has as deleted, what it has as another owner's, and what a page shows as two owners': a
    list may lag behind, and a row of it is no reason to show an account to somebody else.
    """
    async with run.runtime.database.transaction() as connection:
        buried = await swept.buried(connection, listed)
        owners = await swept.living_owners(connection, listed)
        doubtful = plan.doubtful(listed, owners, contradicted, buried)
        ticket = await take_read_ticket(connection) if buried or doubtful else 0
    again: dict[str, Observation | None] = {}
    for account_id in buried:
        # What cannot be read stays as it is: to the row, an observation of its own moment is old news.
        again[account_id] = await _read_suspect(run, account_id, ticket) or Observation(account_id, None, ticket)
    for account_id in doubtful:
        again[account_id] = await _read_suspect(run, account_id, ticket)
    return again


async def _read_suspects(run: _Run, batch: Collection[str]) -> None:
    """Read one batch of suspected removals by id."""
    sweep = run.sweep
    async with run.runtime.database.transaction() as connection:
        ids = await swept.still_suspects(connection, sweep.id, sweep.start_ticket or 0, batch)
        ticket = await take_read_ticket(connection)
    if not ids:
        return
    answers = [await _read_suspect(run, account_id, ticket) for account_id in ids]
    run.suspects_read += len(ids)
    sweep = replace(sweep, last_suspect=ids[-1])
    async with run.runtime.database.transaction() as connection:
        await held(connection, run.lease)

        async def record(decisions: Mapping[str, Decision]) -> None:
            nonlocal sweep
            sweep = plan.counted(sweep, decisions, listed=0)
            await runs.record(connection, run.lease, sweep)

        await apply_observations(
            connection,
            [replace(answer, witness=Witness.LISTING) for answer in answers if answer is not None],
            source=Source.SWEEP,
            actor="stackone",
            now=run.runtime.clock.now(),
            metrics=run.runtime.metrics,
            settings=run.runtime.settings.sync,
            also=record,
        )
    _tell(run, sweep)


async def _read_suspect(run: _Run, account_id: str, ticket: int) -> Observation | None:
    """Read a suspect; None stands for an answer that cannot be read, which removes nothing."""
    try:
        account = await _patiently(run, lambda: run.runtime.stackone.get_account(account_id, priority=Priority.SWEEP))
    except AccountGone:
        return Observation(account_id, None, ticket)
    except UpstreamRejected as error:
        run.unread += 1
        logger.warning("sweep_suspect_unreadable", account_id=account_id, detail=error.detail)
        return None
    return Observation(account_id, account, ticket)


async def _patiently(run: _Run, call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Call StackOne, and again for a while if it is away. Raises Unavailable when it stays away."""
    for tried in range(1, _TRIES):
        try:
            return await call()
        except LeaseLost:
            raise
        except Unavailable as error:
            first = run.runtime.settings.sync.backoff_seconds
            wait = plan.pause(tried, error.retry_after, first=first, longest=run.longest_pause)
            _tell(run, run.sweep, pause=f"{error.detail}; tried again in {wait:.0f} s")
            await asyncio.sleep(wait)
    return await call()


async def _take_ticket(run: _Run) -> int:
    async with run.runtime.database.transaction() as connection:
        return await take_read_ticket(connection)


def _tell(run: _Run, sweep: Sweep, *, pause: str | None = None) -> None:
    run.sweep = sweep
    if run.listener is not None:
        run.listener(run.sweep, Ahead(run.known, run.suspects_read, pause))


async def _record(run: _Run, sweep: Sweep) -> None:
    async with run.runtime.database.transaction() as connection:
        await runs.record(connection, run.lease, sweep)
    run.sweep = sweep


async def _finish(run: _Run, state: SweepState, reason: str | None) -> None:
    await _record(run, replace(run.sweep, state=state, reason=reason, finished_at=run.runtime.clock.now()))


def _report(runtime: Runtime, sweep: Sweep) -> None:
    runtime.metrics.sweeps.labels(sweep.state.value).inc()
    log = logger.info if sweep.state is SweepState.DONE else logger.error
    log(
        "sweep_finished",
        sweep_id=sweep.id,
        state=sweep.state.value,
        listed=sweep.listed,
        added=sweep.added,
        changed=sweep.changed,
        removed=sweep.removed,
        reason=sweep.reason,
    )
