"""Due rows: which accounts are to be read again, who is reading them, and when to try anew.

A mark is a hint, not a message: ten hints for one account are one due row and cost one read.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.claims import backoff, is_claimable
from app.db.tables import upsert
from app.errors import AppError, Unavailable
from app.linked_accounts.changes import Witness
from app.linked_accounts.store import take_read_ticket
from app.linked_accounts.tables import linked_accounts
from app.settings import SyncSettings

_C = linked_accounts.c


@dataclass(frozen=True)
class DueAccount:
    """An account that this process is to read: nobody else takes it until the claim runs out."""

    account_id: str
    marks: int
    attempts: int
    owner_id: str | None
    disconnect_requested_by: str | None
    ticket: int


async def mark_due(
    connection: AsyncConnection, account_id: str, *, now: datetime, witness: Witness | None = None
) -> None:
    """Ask for an account to be read again; an unknown one gets a row that stays unseen until StackOne confirms it.

    `witness` is what says that it is gone: no reason to believe it, but one to believe a read that says so too.
    """
    values = {"account_id": account_id, "refresh_due_at": now, "refresh_marks": 1}
    statement = upsert(connection, linked_accounts, values)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[_C.account_id],
            # A hint is fresh news: whatever backoff an earlier failure had set no longer counts.
            set_={
                "refresh_due_at": now,
                "refresh_marks": _C.refresh_marks + 1,
                "refresh_attempts": 0,
                # The tombstone of an account that StackOne once showed ends with a read only; see `decide`.
                "deleted_at": None,
                **({"deletion_witness": witness.value} if witness is not None else {}),
            },
            where=sa.or_(_C.deleted_at.is_(None), _C.verified_at.is_(None)),
        )
    )


async def note_witness(connection: AsyncConnection, account_ids: Collection[str], witness: Witness) -> None:
    """Write down what says that accounts are gone: the next read that finds nothing may be believed."""
    await connection.execute(
        sa.update(linked_accounts)
        .where(_C.account_id.in_(account_ids), _C.deleted_at.is_(None))
        .values(deletion_witness=witness.value)
    )


async def claim_due(
    connection: AsyncConnection, *, now: datetime, claim_for: timedelta, longest_wait: timedelta, limit: int
) -> list[DueAccount]:
    """Claim up to `limit` due rows of all owners."""
    may_claim = is_claimable(_C.refresh_due_at, _C.claimed_until, now, longest_wait=longest_wait, claim_for=claim_for)
    chosen = (
        sa.select(_C.account_id)
        .where(may_claim, _C.deleted_at.is_(None))
        .order_by(_C.refresh_due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    result = await connection.execute(
        sa.update(linked_accounts)
        .where(_C.account_id.in_(chosen))
        .values(claimed_until=now + claim_for)
        .returning(_C.account_id, _C.refresh_marks, _C.refresh_attempts, _C.owner_id, _C.disconnect_requested_by)
    )
    rows = result.all()
    if not rows:
        return []
    # One ticket for the batch: its reads start after this, and of one account there is one read in it.
    ticket = await take_read_ticket(connection)
    return [
        DueAccount(
            row.account_id, row.refresh_marks, row.refresh_attempts, row.owner_id, row.disconnect_requested_by, ticket
        )
        for row in rows
    ]


async def reschedule(connection: AsyncConnection, account: DueAccount, *, until: datetime) -> None:
    """Give a claimed row back to be tried again later; a hint that came in meanwhile keeps it due at once."""
    await connection.execute(
        sa.update(linked_accounts)
        .where(_C.account_id == account.account_id, _C.deleted_at.is_(None))
        .values(
            claimed_until=None,
            refresh_attempts=account.attempts + 1,
            refresh_due_at=sa.case((_C.refresh_marks == account.marks, until), else_=_C.refresh_due_at),
        )
    )


def wait_after(
    account: DueAccount, error: AppError | None, *, settings: SyncSettings, jitter: random.Random
) -> timedelta:
    """Return how long a claimed row waits for its next try."""
    return backoff(
        account.attempts,
        first=settings.backoff_seconds,
        longest=settings.max_backoff_seconds,
        jitter=jitter,
        retry_after=error.retry_after if isinstance(error, Unavailable) else None,
    )
