"""The one way in which what StackOne says becomes what we store.

Confirm, refresh, sweep and disconnect all end here. An observation is what one read of StackOne said, with the
ticket that the read drew before it started; what it means for a row is decided by pure functions (`decide`). Batches
lock their rows in the order of their ids. One account of PostgreSQL is decided by the row as it was seen before the
read, and written in one statement if it still is that row; if it has moved meanwhile, it is locked like a batch.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import Statement
from app.db.tables import row_version, upsert
from app.linked_accounts.changes import Change, Kind, Source
from app.linked_accounts.decide import Decision, Observation, Outcome, Removal, decide, mark_values, only_seen_again
from app.linked_accounts.removal_limit import RemovalLimit
from app.linked_accounts.store import (
    LinkedAccount,
    Seen,
    append_changes,
    appending_to_feed,
    as_entry,
    columns,
    count_missing_of_all_owners,
    count_some_known,
    find_of_any_owner,
    from_row,
)
from app.linked_accounts.tables import linked_accounts
from app.metrics import Metrics
from app.runtime import Runtime
from app.settings import SyncSettings

logger = structlog.get_logger(__name__)

_C = linked_accounts.c
# For how long accounts that went on the word of two reads count towards the removal limit.
_LIMIT_WINDOW = timedelta(minutes=10)
REMOVALS_PAUSED = (
    "StackOne says of unusually many accounts that they do not exist: none is removed for it. That ends by itself once"
    " reads show the accounts again (check the API key's project). If they really are gone, a sweep whose listing"
    " lacks them removes them: `broker sync`, with `--max-removal-percent 100` where its own limit stops it"
)


async def apply_observations(
    connection: AsyncConnection,
    observations: Sequence[Observation],
    *,
    source: Source,
    actor: str,
    now: datetime,
    metrics: Metrics,
    settings: SyncSettings,
    swept_in: int | None = None,
    also: Callable[[Mapping[str, Decision]], Awaitable[None]] | None = None,
) -> dict[str, Decision]:
    """Apply what StackOne said about some accounts and append what changed to the feed.

    The transaction may do nothing after it, as after `append_changes`. `swept_in` is the sweep whose listing this is.
    `also` writes down what came of it, in the same transaction.
    Returns the decision for each account id.
    """
    by_id = {observation.account_id: observation for observation in observations}
    rows = await _lock_rows(connection, by_id)
    removal = await _removal(connection, observations, settings, now)
    decisions: dict[str, Decision] = {}
    updates: list[dict[str, Any]] = []
    changes: list[Change] = []
    seen_again: list[str] = []
    for account_id, row in rows.items():
        observation = by_id[account_id]
        decision, values = _meaning(row, observation, now, removal)
        decisions[account_id] = decision
        if decision.outcome is Outcome.UNCHANGED and decision.values and only_seen_again(row, values):
            seen_again.append(account_id)
        elif values:
            updates.append({"row_id": account_id, **{name: values.get(name, getattr(row, name)) for name in _WRITTEN}})
        changes.extend(decision.changes)
        _report(row, decision, now, metrics)
    if updates:
        statement = sa.update(linked_accounts).where(_C.account_id == sa.bindparam("row_id"))
        await connection.execute(statement.values({name: sa.bindparam(name) for name in _WRITTEN}), updates)
    await _mark_seen(connection, observations, seen_again, swept_in, now)
    if also is not None:
        await also(decisions)
    await append_changes(connection, changes, source=source, actor=actor, now=now)
    return decisions


def _meaning(
    row: LinkedAccount, observation: Observation, now: datetime, removal: Removal
) -> tuple[Decision, dict[str, Any]]:
    decision = decide(row, observation, now, removal)
    return decision, {**decision.values, **mark_values(row, observation, decision, now, removal)}


@dataclass(frozen=True)
class Applied:
    """What an observation did, and the row as it is now; None where there is none."""

    decision: Decision
    row: LinkedAccount | None


async def apply_observation(
    runtime: Runtime, seen: Seen, observation: Observation, *, source: Source, actor: str
) -> Applied:
    """Apply what StackOne said about one account, whose row was seen before StackOne was asked."""
    now, sync = runtime.clock.now(), runtime.settings.sync
    # What removes an account is rare, and counts others.
    if runtime.database.dialect == "postgresql" and observation.account is not None:
        removal = Removal(timedelta(seconds=sync.deletion_confirm_seconds))
        decision, values = _meaning(seen.row, observation, now, removal)
        row = replace(seen.row, **values)
        entries = [
            {"number": number, **as_entry(change, source=source, actor=actor)}
            for number, change in enumerate(decision.changes, 1)
        ]
        written = {name: getattr(row, name) for name in _WRITTEN}
        parameters = {**written, "account_id": row.account_id, "version": seen.version, "at": now, "entries": entries}
        if values and await runtime.database.fetch(_WRITE_IF_UNMOVED, parameters):
            _report(seen.row, decision, now, runtime.metrics)
            return Applied(decision, row)
    stored: LinkedAccount | None = None

    async def read(_: object) -> None:
        nonlocal stored
        stored = await find_of_any_owner(connection, observation.account_id)

    async with runtime.database.transaction() as connection:
        decisions = await apply_observations(
            connection,
            [observation],
            source=source,
            actor=actor,
            now=now,
            metrics=runtime.metrics,
            settings=sync,
            also=read,
        )
    return Applied(decisions[observation.account_id], stored)


async def _removal(
    connection: AsyncConnection, observations: Sequence[Observation], settings: SyncSettings, now: datetime
) -> Removal:
    confirm_after = timedelta(seconds=settings.deletion_confirm_seconds)
    if all(observation.account is not None for observation in observations):
        return Removal(confirm_after)
    return Removal(confirm_after, is_paused=await removals_paused(connection, settings, now))


async def removals_paused(connection: AsyncConnection, settings: SyncSettings, now: datetime) -> bool:
    """Tell whether so many accounts are missing that the word of two reads removes none for now."""
    since = now - _LIMIT_WINDOW - timedelta(seconds=settings.deletion_confirm_seconds)
    missing = await count_missing_of_all_owners(connection, since=since)
    removal_limit = RemovalLimit(settings.sweep_max_removal_percent, settings.sweep_removal_floor)
    if missing <= removal_limit.floor and removal_limit.percent > 0:
        return False
    # Rows are locked meanwhile, and there may be millions: no more of them are counted than matter.
    known = await count_some_known(connection, at_most=removal_limit.enough_for(missing))
    return not removal_limit.allows(known=known, suspects=missing)


async def _mark_seen(
    connection: AsyncConnection,
    observations: Sequence[Observation],
    seen_again: list[str],
    swept_in: int | None,
    now: datetime,
) -> None:
    """Confirm unchanged rows, and note the sweep, in one statement per batch: most rows of a sweep are of this kind."""
    by_ticket: dict[int, list[str]] = {}
    unchanged = set(seen_again)
    for observation in observations:
        if observation.account_id in unchanged:
            by_ticket.setdefault(observation.ticket, []).append(observation.account_id)
    mark = {"swept_in": swept_in} if swept_in is not None else {}
    for ticket, ids in by_ticket.items():
        statement = sa.update(linked_accounts).where(_C.account_id.in_(ids))
        await connection.execute(statement.values(verified_at=now, read_ticket=ticket, **mark))
    others = [observation.account_id for observation in observations if observation.account_id not in unchanged]
    if mark and others:
        await connection.execute(sa.update(linked_accounts).where(_C.account_id.in_(others)).values(**mark))


_WRITTEN = (
    "owner_id", "owner_name", "username", "provider", "status", "status_reasons", "label", "type", "created_at",
    "updated_at", "needs_reauth_since", "recovered_at", "remind_at", "verified_at", "read_ticket", "deleted_at",
    "gone_since", "deletion_witness", "refresh_due_at", "refresh_attempts", "claimed_until", "disconnect_requested_at",
    "disconnect_requested_by", "confirmed_at", "confirmed_by",
)  # fmt: skip


def _write_if_unmoved() -> Statement:
    # No row is ever removed, so one that was there is still there. Where there was none the version is null, which is
    # no row's.
    new = postgresql.insert(linked_accounts).values({name: sa.bindparam(name) for name in ("account_id", *_WRITTEN)})
    is_unmoved = row_version(linked_accounts) == sa.bindparam("version", type_=sa.Text)
    written = (
        new.on_conflict_do_update(
            index_elements=[_C.account_id], set_={name: new.excluded[name] for name in _WRITTEN}, where=is_unmoved
        )
        .returning(_C.account_id)
        .cte("written")
    )
    return Statement(appending_to_feed(sa.select(written.c.account_id)))


_WRITE_IF_UNMOVED: Final = _write_if_unmoved()


async def _lock_rows(connection: AsyncConnection, by_id: Mapping[str, Observation]) -> dict[str, LinkedAccount]:
    """Create the missing rows of accounts that are there, and lock all rows in one order.

    Whoever locks several goes by that order, the database's own, in one pass: two of them never wait for each other.
    """
    ids = sorted(by_id)
    present = [account_id for account_id in ids if by_id[account_id].account is not None]
    query = sa.select(*columns()).where(_C.account_id.in_(ids)).order_by(_C.account_id)
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK, {"ids": ids, "present": present})
        # A row that somebody has made meanwhile, of an account that is not there, is passed by.
        query = query.with_for_update(key_share=True, skip_locked=True)
    elif present:
        statement = upsert(connection, linked_accounts, [{"account_id": account_id} for account_id in present])
        await connection.execute(statement.on_conflict_do_nothing(index_elements=[_C.account_id]))
    return {row.account_id: from_row(row) for row in await connection.execute(query)}


def _locking() -> sa.Insert:
    texts = ARRAY(sa.Text())
    wanted = sa.func.unnest(sa.bindparam("ids", type_=texts)).table_valued(sa.column("id", sa.Text)).render_derived()
    is_present = wanted.c.id == sa.any_(sa.bindparam("present", type_=texts))
    is_stored = sa.exists().where(_C.account_id == wanted.c.id)
    rows = sa.select(wanted.c.id).where(sa.or_(is_present, is_stored)).order_by(wanted.c.id)
    statement = postgresql.insert(linked_accounts).from_select(["account_id"], rows)
    # Locks what is there, and changes nothing of it.
    return statement.on_conflict_do_update(
        index_elements=[_C.account_id], set_={"refresh_marks": _C.refresh_marks}, where=sa.false()
    )


_LOCK: Final = _locking()


def _report(row: LinkedAccount, decision: Decision, now: datetime, metrics: Metrics) -> None:
    for change in decision.changes:
        if change.kind is Kind.OWNER_CHANGED:
            metrics.owner_changes.inc()
            logger.error("account_owner_changed", account_id=row.account_id)
            break
        if change.kind is Kind.RECOVERED and row.needs_reauth_since is not None:
            metrics.recovery.observe(max((now - row.needs_reauth_since).total_seconds(), 0.0))
    if decision.outcome is Outcome.UNCONFIRMED and row.gone_since is None:
        logger.warning("account_missing", account_id=row.account_id)
    if decision.outcome is Outcome.PAUSED:
        metrics.removals_paused.inc()
        logger.error("account_removal_paused", account_id=row.account_id, advice=REMOVALS_PAUSED)
    if decision.outcome is Outcome.REVIVED:
        metrics.revived.inc()
        logger.error("deleted_account_revived", account_id=row.account_id)
    if decision.outcome is Outcome.ERASED:
        logger.error("erased_account_seen_again", account_id=row.account_id)
