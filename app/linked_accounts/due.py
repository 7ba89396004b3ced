"""Due rows: which accounts are to be read again, who is reading them, and when to try anew.

A mark is a hint, not a message: ten hints for one account are one due row and cost one read.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.claims import backoff, is_claimable
from app.db.database import Database
from app.db.statements import Statement
from app.db.tables import row_version, upsert
from app.errors import AppError, Unavailable
from app.linked_accounts.changes import Witness
from app.linked_accounts.store import (
    LinkedAccount,
    Seen,
    columns,
    from_row,
    lock_in_order,
    read_ticket_where,
    take_read_ticket,
)
from app.linked_accounts.tables import linked_accounts
from app.settings import SyncSettings

_C = linked_accounts.c


@dataclass(frozen=True)
class DueAccount:
    """An account that this process is to read: nobody else takes it until the claim runs out."""

    row: LinkedAccount
    ticket: int
    version: str | None = None

    @property
    def account_id(self) -> str:
        """Which account."""
        return self.row.account_id

    @property
    def marks(self) -> int:
        """How many hints there had been when it was claimed."""
        return self.row.refresh_marks

    @property
    def attempts(self) -> int:
        """How many tries have failed before."""
        return self.row.refresh_attempts

    @property
    def seen(self) -> Seen:
        """The row as it was claimed."""
        return Seen(self.row, self.version)


async def mark_due(
    connection: AsyncConnection, account_id: str, *, now: datetime, witness: Witness | None = None
) -> None:
    """Ask for an account to be read again; an unknown one gets a row that stays unseen until StackOne confirms it.

    `witness` is what says that it is gone: no reason to believe it, but one to believe a read that says so too.
    """
    values = {
        "account_id": account_id,
        "refresh_due_at": now,
        "refresh_marks": 1,
        "deletion_witness": witness.value if witness is not None else None,
    }
    await connection.execute(_or_mark_again(upsert(connection, linked_accounts, values)))


def marking_due(
    account_id: sa.ColumnElement[str], at: sa.ColumnElement[datetime], is_deletion: sa.ColumnElement[bool]
) -> sa.Insert:
    """Do what `mark_due` does for the rows of a part of a larger statement of PostgreSQL: for each hint one mark."""
    witness = sa.case((sa.func.bool_or(is_deletion), Witness.EVENT.value))
    # In the order of their ids, as all rows are locked.
    hints = sa.select(account_id, sa.func.max(at), sa.func.count(), witness).group_by(account_id).order_by(account_id)
    fields = ["account_id", "refresh_due_at", "refresh_marks", "deletion_witness"]
    return _or_mark_again(postgresql.insert(linked_accounts).from_select(fields, hints))


def _or_mark_again(statement: postgresql.Insert | sqlite.Insert) -> sa.Insert:
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[_C.account_id],
        # A hint is fresh news: whatever backoff an earlier failure had set no longer counts.
        set_={
            "refresh_due_at": new.refresh_due_at,
            "refresh_marks": _C.refresh_marks + new.refresh_marks,
            "refresh_attempts": 0,
            # The tombstone of an account that StackOne once showed ends with a read only; see `decide`.
            "deleted_at": None,
            "deletion_witness": sa.func.coalesce(new.deletion_witness, _C.deletion_witness),
        },
        where=sa.or_(_C.deleted_at.is_(None), _C.verified_at.is_(None)),
    )


async def note_witness(connection: AsyncConnection, account_ids: Collection[str], witness: Witness) -> None:
    """Write down what says that accounts are gone: the next read that finds nothing may be believed."""
    are_there = sa.and_(_C.account_id.in_(account_ids), _C.deleted_at.is_(None))
    await lock_in_order(connection, are_there)
    await connection.execute(sa.update(linked_accounts).where(are_there).values(deletion_witness=witness.value))


def _claiming(now: Any, *, claim_for: timedelta, longest_wait: timedelta, limit: Any) -> sa.Update:
    may_claim = is_claimable(_C.refresh_due_at, _C.claimed_until, now, longest_wait=longest_wait, claim_for=claim_for)
    chosen = (
        sa.select(_C.account_id)
        .where(may_claim, _C.deleted_at.is_(None))
        .order_by(_C.refresh_due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return sa.update(linked_accounts).where(_C.account_id.in_(chosen)).values(claimed_until=now + claim_for)


@cache
def _claim_and_ticket(claim_for: timedelta, longest_wait: timedelta) -> Statement:
    # Of the plain type, to which an interval can be added.
    now, limit = sa.bindparam("now", type_=sa.DateTime(timezone=True)), sa.bindparam("limit", type_=sa.Integer)
    claiming = _claiming(now, claim_for=claim_for, longest_wait=longest_wait, limit=limit)
    claimed = claiming.returning(row_version(linked_accounts).label("version"), *columns()).cte("claimed")
    # One ticket for the batch: its reads start after this, and of one account there is one read in it.
    ticket = read_ticket_where(sa.exists(sa.select(claimed.c.account_id))).cte("ticket")
    return Statement(sa.select(ticket.c.value, *claimed.c).select_from(claimed.join(ticket, sa.true())))


async def claim_due(
    database: Database, *, now: datetime, claim_for: timedelta, longest_wait: timedelta, limit: int
) -> list[DueAccount]:
    """Claim up to `limit` due rows of all owners."""
    if database.dialect == "postgresql":
        statement = _claim_and_ticket(claim_for, longest_wait)
        found = await database.fetch(statement, {"now": now, "limit": limit})
        return [DueAccount(LinkedAccount(*fields), ticket, version) for ticket, version, *fields in found]
    claiming = _claiming(now, claim_for=claim_for, longest_wait=longest_wait, limit=limit)
    async with database.transaction() as connection:
        rows = (await connection.execute(claiming.returning(*columns()))).all()
        ticket = await take_read_ticket(connection) if rows else 0
    return [DueAccount(from_row(row), ticket) for row in rows]


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
