"""Disconnect: an owner gives an account up. Written down first, then deleted at StackOne, then read, then a tombstone.

The request is a mark on the account's row, so it outlives the process: whatever interrupts it here, the refresh of due
rows carries it on. StackOne has no conditional delete; the account's owner is therefore read again right before every
try, with room for the try made before that. A request whose owner has lost the account meanwhile is dropped instead of
being carried out on somebody else's account. An acknowledged delete is not the end: only a read that says that there is
no such account is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import AppError, NotFound, Unavailable
from app.linked_accounts import due
from app.linked_accounts.apply import apply_observations
from app.linked_accounts.changes import Change, Kind, Source, Witness
from app.linked_accounts.decide import UNRESOLVED, Observation, Outcome
from app.linked_accounts.due import DueAccount
from app.linked_accounts.store import LinkedAccount, append_changes, columns, from_row, take_read_ticket
from app.linked_accounts.tables import linked_accounts
from app.runtime import Runtime
from app.stackone.budget import Priority
from app.stackone.models import Account, AccountGone

logger = structlog.get_logger(__name__)

_C = linked_accounts.c


class Disconnected(Enum):
    """How far a disconnect came."""

    GONE = auto()
    """StackOne has no such account any more, and the row is a tombstone."""
    LOST = auto()
    """The account is another owner's now: the request is dropped."""
    RESCHEDULED = auto()
    """StackOne is away, or has yet to confirm that the account is gone; the due row is tried again later."""


@dataclass(frozen=True)
class LastSeen:
    """What StackOne said last of an account that is to go."""

    account: Account | None
    """None where it says that there is no such account."""
    is_deleted: bool
    """Whether it acknowledged a delete of ours."""


async def disconnect(
    runtime: Runtime,
    account_id: str,
    *,
    owner_ids: frozenset[str] | None,
    actor: str,
    priority: Priority = Priority.INTERACTIVE,
    waiting: str | None = None,
) -> LinkedAccount | None:
    """Disconnect an account of one of these owners (None: of any); return it if StackOne is yet to confirm.

    `waiting` is the owner whose user waits for it, and whose share of the budget it takes.
    Safe to repeat: an account that is gone already is a success for the owner who had it. Raises NotFound alike for an
    unknown account and for one of other owners.
    """
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        row = await _locked(connection, account_id)
        if row is None or row.verified_at is None or (owner_ids is not None and row.owner_id not in owner_ids):
            raise NotFound
        if row.deleted_at is not None:
            return None
        claim_for = timedelta(seconds=runtime.settings.sync.claim_seconds)
        account = await request_disconnect(connection, row, actor=actor, now=now, claim_for=claim_for)
    outcome = await carry_out(runtime, account, priority=priority, waiting=waiting)
    if outcome is Disconnected.LOST:
        raise NotFound
    if outcome is Disconnected.GONE:
        return None
    async with runtime.database.reading() as connection:
        found = (await connection.execute(sa.select(*columns()).where(_C.account_id == account_id))).one()
    return _still_leaving(from_row(found), owner_ids)


def _still_leaving(row: LinkedAccount, owner_ids: frozenset[str] | None) -> LinkedAccount | None:
    """Return an account that is yet to go, or None if it is gone.

    A read beside may have found it to be another owner's, and then there is nothing to tell of it. Raises NotFound
    then, and Unavailable if it has become the owner's again, since the request was dropped on the way.
    """
    if row.deleted_at is not None:
        return None
    if owner_ids is not None and row.owner_id not in owner_ids:
        raise NotFound
    if not row.leaving:
        message = "the account changed hands meanwhile; try again"
        raise Unavailable(message, retry_after=1.0)
    return row


async def carry_out(
    runtime: Runtime, account: DueAccount, *, priority: Priority = Priority.INTERACTIVE, waiting: str | None = None
) -> Disconnected:
    """Delete a claimed account at StackOne and, once a read confirms it, make its row a tombstone."""
    try:
        seen = await delete_upstream(
            runtime,
            account.account_id,
            lambda found: found.owner_id == account.row.owner_id,
            priority=priority,
            waiting=waiting,
        )
    except AppError as error:
        await _reschedule(runtime, account, error)
        return Disconnected.RESCHEDULED
    # Drawn after StackOne's answer: every read that may still show the account has a lower ticket and is stale.
    async with runtime.database.transaction() as connection:
        ticket = await take_read_ticket(connection)
    actor = account.row.disconnect_requested_by or "stackone"
    witness = Witness.DELETION if seen.is_deleted else None
    observation = Observation(account.account_id, seen.account, ticket, account.marks, witness)
    async with runtime.database.transaction() as connection:
        decisions = await apply_observations(
            connection,
            [observation],
            source=Source.DISCONNECT,
            actor=actor,
            now=runtime.clock.now(),
            metrics=runtime.metrics,
            settings=runtime.settings.sync,
        )
    outcome = decisions[account.account_id].outcome
    if seen.account is None and outcome in {Outcome.GONE, Outcome.UNCHANGED}:
        logger.info("account_disconnected", account_id=account.account_id, actor=actor)
        return Disconnected.GONE
    if outcome is Outcome.UNCONFIRMED:
        # It waits for its second answer already.
        return Disconnected.RESCHEDULED
    is_lost = seen.account is not None and seen.account.owner_id != account.row.owner_id
    if not is_lost or outcome in UNRESOLVED:
        await _reschedule(runtime, account, None)
        return Disconnected.RESCHEDULED
    logger.warning("disconnect_dropped", reason="the account is another owner's now", account_id=account.account_id)
    return Disconnected.LOST


async def delete_upstream(
    runtime: Runtime,
    account_id: str,
    belongs: Callable[[Account], bool],
    *,
    priority: Priority,
    waiting: str | None = None,
) -> LastSeen:
    """Have StackOne delete an account, if it still belongs to whom it should, and read whether it did.

    Raises Unavailable or UpstreamRejected as StackOne answers.
    """
    # Room first: an account may change hands while room is waited for.
    await runtime.stackone.reserve(priority, owner_id=waiting)
    found = await _read(runtime, account_id, priority, waiting)
    if found is None or not belongs(found):
        return LastSeen(found, is_deleted=False)
    try:
        await runtime.stackone.delete_account(account_id, priority=priority, owner_id=waiting)
    except AccountGone:
        return LastSeen(None, is_deleted=False)
    # Written down first: the read may fail, and later ones need to know.
    async with runtime.database.transaction() as connection:
        await due.note_witness(connection, [account_id], Witness.DELETION)
    return LastSeen(await _read(runtime, account_id, priority, waiting), is_deleted=True)


async def _read(runtime: Runtime, account_id: str, priority: Priority, waiting: str | None) -> Account | None:
    try:
        return await runtime.stackone.get_account(account_id, priority=priority, owner_id=waiting)
    except AccountGone:
        return None


async def _reschedule(runtime: Runtime, account: DueAccount, error: AppError | None) -> None:
    wait = due.wait_after(account, error, settings=runtime.settings.sync, jitter=runtime.jitter)
    async with runtime.database.transaction() as connection:
        await due.reschedule(connection, account, until=runtime.clock.now() + wait)
    runtime.account_due.set()
    logger.warning(
        "disconnect_rescheduled",
        account_id=account.account_id,
        code=error.code if error else "not_confirmed",
        attempts=account.attempts + 1,
    )


async def request_disconnect(
    connection: AsyncConnection, row: LinkedAccount, *, actor: str, now: datetime, claim_for: timedelta | None
) -> DueAccount:
    """Mark a locked row to be disconnected, and claim it for the caller if asked to; a repeat is no second event.

    The transaction may do nothing after it, as after `append_changes`.
    """
    by = row.disconnect_requested_by or actor
    marks = row.refresh_marks + 1
    await connection.execute(
        sa.update(linked_accounts)
        .where(_C.account_id == row.account_id)
        .values(
            disconnect_requested_at=row.disconnect_requested_at or now,
            disconnect_requested_by=by,
            refresh_due_at=now,
            refresh_marks=marks,
            claimed_until=now + claim_for if claim_for is not None else None,
        )
    )
    ticket = await take_read_ticket(connection)
    if row.disconnect_requested_at is None:
        change = Change(Kind.DISCONNECT_REQUESTED, row.account_id, row.owner_id, row.provider)
        await append_changes(connection, [change], source=Source.DISCONNECT, actor=actor, now=now)
    return DueAccount(replace(row, refresh_marks=marks, disconnect_requested_by=by), ticket)


async def _locked(connection: AsyncConnection, account_id: str) -> LinkedAccount | None:
    query = sa.select(*columns()).where(_C.account_id == account_id).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return from_row(row) if row is not None else None
