"""Sweep: page through everything StackOne has and make the store equal to it.

Listed accounts are applied page by page. What a complete listing lacks is only suspected: each such account is read by
its id, and only StackOne's own "no such account" removes it. The record of the sweep moves on in the transaction of
the work it stands for and under the lease's fence, so a crash costs at most one page and two sweepers never mix.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TypeVar

import structlog

from app.db.leases import Lease, LeaseLost, holding
from app.errors import Unavailable, UpstreamRejected
from app.linked_accounts.apply import Decision, Observation, Outcome, apply_observations
from app.linked_accounts.changes import Source
from app.linked_accounts.store import take_read_ticket
from app.runtime import Runtime
from app.stackone.budget import Priority
from app.stackone.client import AccountGone
from app.stackone.models import AccountPage
from app.sync import runs
from app.sync import suspects as swept
from app.sync.plan import Page, RemovalLimit, judge_page
from app.sync.runs import Sweep

logger = structlog.get_logger(__name__)

LEASE = "sweep"
LEASE_SECONDS = 30.0
_PATIENCE = 4
_PAUSE_AFTER_FAILURE_SECONDS = 30.0
_LONGEST_PAUSE = 60.0
_SUSPECTS_AT_ONCE = 25
_MOST_UNREADABLE_PAGES = 3
_INCOMPLETE = (
    "StackOne's listing has no recognisable end, or holes (see the log for sweep_rows_unreadable and"
    " sweep_page_refused): what it shows was taken in, and nothing was removed"
)
_UNREAD = "StackOne would not say what became of {} account(s) that its listing lacks: they were left as they are"

Answer = TypeVar("Answer")
Listener = Callable[[Sweep, int], None]


@dataclass(frozen=True)
class _Counts:
    listed: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0


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
    holder = runtime.new_id("sw")
    async with holding(runtime.database, LEASE, holder, seconds=LEASE_SECONDS) as lease:
        if lease is None:
            return None
        async with runtime.database.transaction() as connection:
            sweep = await runs.begin(
                connection, lease, by=by, now=runtime.clock.now(), max_removal_percent=max_removal_percent
            )
        try:
            finished = await _Sweeper(runtime, lease, sweep, listener, longest_pause).run()
        except UpstreamRejected as error:
            values = {"state": "failed", "finished_at": runtime.clock.now(), "reason": error.detail}
            async with runtime.database.transaction() as connection:
                await runs.record(connection, lease, sweep.id, values)
            runtime.metrics.sweeps.labels("failed").inc()
            raise
        _report(runtime, finished)
        return finished


async def sweep_if_due(runtime: Runtime) -> int:
    """Sweep if one is asked for, was interrupted, or is due by the clock; return 0, since the next is not due at once.

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
    interval = runtime.settings.sync.sweep_interval_seconds
    if interval == 0:
        return False
    if not last or last[0].finished_at is None:
        return True
    age = runtime.clock.now() - last[0].finished_at
    # An end in the future was written before the clock was set back; it must not keep sweeps from starting.
    return age >= timedelta(seconds=interval) or age < timedelta(seconds=-interval)


class _Sweeper:
    def __init__(
        self, runtime: Runtime, lease: Lease, sweep: Sweep, listener: Listener | None, longest_pause: float
    ) -> None:
        self._runtime = runtime
        self._lease = lease
        self._sweep = sweep
        self._listener = listener
        self._longest_pause = longest_pause
        self._page_size = runtime.settings.sync.sweep_page_size
        self._counts = _Counts(sweep.listed, sweep.added, sweep.changed, sweep.removed)
        self._known = 0
        self._holes = 0
        self._unread = 0

    async def run(self) -> Sweep:
        async with self._runtime.database.reading() as connection:
            self._known = await swept.count_known(connection)
        # A listing that had a hole when its sweeper died is not read on: it can no longer become complete.
        is_over = self._sweep.complete is not None
        while not is_over:
            is_over = await self._sweep_page(self._sweep.next_page)
        if not self._sweep.complete:
            return await self._finish("stopped", _INCOMPLETE)
        sweep_id, start = self._sweep.id, self._sweep.start_ticket or 0
        async with self._runtime.database.reading() as connection:
            known = await swept.count_known(connection)
            suspects = await swept.count_suspects(connection, sweep_id, start)
        percent = self._sweep.max_removal_percent
        settings = self._runtime.settings.sync
        removal_limit = RemovalLimit(
            settings.sweep_max_removal_percent if percent is None else percent, settings.sweep_removal_floor
        )
        if not removal_limit.allows(known=known, suspects=suspects + self._counts.removed):
            return await self._finish("stopped", removal_limit.advice(known=known, suspects=suspects))
        await self._record(suspects=suspects)
        while await self._read_suspects():
            pass
        if self._unread:
            return await self._finish("stopped", _UNREAD.format(self._unread))
        return await self._finish("done", None)

    async def _sweep_page(self, number: int) -> bool:
        """Read one page and apply it; return whether the listing ends here."""
        page = await self._list(number)
        if page is None:
            await self._record(next_page=number + 1, complete=False if number > 0 else None)
            return self._holes >= _MOST_UNREADABLE_PAGES
        listed = {account.id: account for account in page.accounts}
        now = self._runtime.clock.now()
        async with self._runtime.database.transaction() as connection:
            known = await swept.already_listed(connection, self._sweep.id, listed)
            new = [account for account_id, account in listed.items() if account_id not in known]
            verdict = judge_page(Page(number, self._page_size, page.rows, len(new)))
            has_holes = self._sweep.complete is False or page.unreadable > 0
            complete = False if has_holes else None if verdict == "more" else verdict == "complete"
            progress = replace(self._sweep, next_page=number + 1, complete=complete)
            # Before the accounts: the feed's counter is the last row that a transaction may lock.
            await runs.record(connection, self._lease, self._sweep.id, self._values(progress))
            decisions = await apply_observations(
                connection,
                [Observation(account.id, account, self._ticket) for account in new],
                source=Source.SWEEP,
                actor="stackone",
                now=now,
                metrics=self._runtime.metrics,
                swept_in=self._sweep.id,
            )
        self._sweep = progress
        self._count(decisions, listed=len(new))
        return verdict != "more"

    async def _list(self, number: int) -> AccountPage | None:
        """Read one page; None stands for a page that StackOne would not or could not give."""
        async with self._runtime.database.transaction() as connection:
            self._ticket = await take_read_ticket(connection)
        try:
            page = await self._patiently(
                lambda: self._runtime.stackone.list_page(
                    page=number, page_size=self._page_size, priority=Priority.SWEEP
                )
            )
        except UpstreamRejected as error:
            if number == 0:
                return None
            # The listing is partial now, which still shows what is there; several such pages make it useless.
            self._holes += 1
            logger.warning("sweep_page_refused", page=number, detail=error.detail)
            if number == 1:
                raise
            return None
        if page.unreadable:
            logger.warning("sweep_rows_unreadable", page=number, rows=page.unreadable)
        return page

    async def _read_suspects(self) -> bool:
        """Read one batch of suspected removals by id; return whether there may be more."""
        sweep = self._sweep
        async with self._runtime.database.transaction() as connection:
            ids = await swept.suspects(
                connection, sweep.id, sweep.start_ticket or 0, after=sweep.last_suspect, limit=_SUSPECTS_AT_ONCE
            )
            ticket = await take_read_ticket(connection)
        if not ids:
            return False
        observations = [
            observation for account_id in ids if (observation := await self._read(account_id, ticket)) is not None
        ]
        progress = replace(sweep, last_suspect=ids[-1])
        async with self._runtime.database.transaction() as connection:
            await runs.record(connection, self._lease, sweep.id, self._values(progress))
            decisions = await apply_observations(
                connection,
                observations,
                source=Source.SWEEP,
                actor="stackone",
                now=self._runtime.clock.now(),
                metrics=self._runtime.metrics,
            )
        self._sweep = progress
        self._count(decisions, listed=0)
        return True

    async def _read(self, account_id: str, ticket: int) -> Observation | None:
        """Read a suspect; None stands for an answer that cannot be read, which removes nothing."""
        try:
            account = await self._patiently(
                lambda: self._runtime.stackone.get_account(account_id, priority=Priority.SWEEP)
            )
        except AccountGone:
            return Observation(account_id, None, ticket)
        except UpstreamRejected as error:
            self._unread += 1
            logger.warning("sweep_suspect_unreadable", account_id=account_id, detail=error.detail)
            return None
        return Observation(account_id, account, ticket)

    async def _patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call StackOne, and again for a while if it is away. Raises Unavailable when it stays away."""
        for attempt in range(_PATIENCE):
            try:
                return await call()
            except LeaseLost:
                raise
            except Unavailable as error:
                if attempt == _PATIENCE - 1:
                    raise
                wait = max(error.retry_after or 0, self._runtime.settings.sync.backoff_seconds * 2**attempt)
                await asyncio.sleep(min(wait, self._longest_pause))
        raise Unavailable("StackOne cannot be reached right now")

    def _count(self, decisions: dict[str, Decision], *, listed: int) -> None:
        outcomes = [decision.outcome for decision in decisions.values()]
        fresh = sum(decision.is_new for decision in decisions.values())
        self._counts = _Counts(
            self._counts.listed + listed,
            self._counts.added + fresh,
            self._counts.changed + outcomes.count(Outcome.APPLIED) - fresh,
            self._counts.removed + outcomes.count(Outcome.GONE),
        )
        if self._listener is not None:
            self._listener(replace(self._sweep, **asdict(self._counts)), self._known)

    def _values(self, progress: Sweep) -> dict[str, object]:
        kept = {name: getattr(progress, name) for name in ("next_page", "complete", "last_suspect", "suspects")}
        return {**kept, **asdict(self._counts)}

    async def _record(self, **changes: object) -> None:
        self._sweep = replace(self._sweep, **changes)  # type: ignore[arg-type]  # named fields of Sweep
        async with self._runtime.database.transaction() as connection:
            await runs.record(connection, self._lease, self._sweep.id, self._values(self._sweep))

    async def _finish(self, state: str, reason: str | None) -> Sweep:
        now = self._runtime.clock.now()
        self._sweep = replace(self._sweep, state=state, reason=reason, finished_at=now, **asdict(self._counts))
        values = {**self._values(self._sweep), "state": state, "reason": reason, "finished_at": now}
        async with self._runtime.database.transaction() as connection:
            await runs.record(connection, self._lease, self._sweep.id, values)
        return self._sweep


def _report(runtime: Runtime, sweep: Sweep) -> None:
    runtime.metrics.sweeps.labels(sweep.state).inc()
    for kind in ("added", "changed", "removed"):
        runtime.metrics.sweep_drift.labels(kind).set(getattr(sweep, kind))
    if sweep.state == "done":
        runtime.metrics.last_sweep.set(runtime.clock.now().timestamp())
    log = logger.info if sweep.state == "done" else logger.error
    log(
        "sweep_finished",
        sweep_id=sweep.id,
        state=sweep.state,
        listed=sweep.listed,
        added=sweep.added,
        changed=sweep.changed,
        removed=sweep.removed,
        reason=sweep.reason,
    )
