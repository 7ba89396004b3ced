"""Queries of linked accounts. Those that serve an end user take an owner id; the others say so in their names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.counters import advance
from app.linked_accounts.tables import linked_accounts
from app.stackone.models import REAUTH_STATUSES, USABLE_STATUSES

_READS = "account_reads"

_C = linked_accounts.c
# An account is shown once StackOne itself has vouched for it and until it is gone or asked to go.
_VISIBLE = sa.and_(
    _C.verified_at.is_not(None), _C.deleted_at.is_(None), _C.owner_id.is_not(None), _C.disconnect_requested_at.is_(None)
)


@dataclass(frozen=True)
class LinkedAccount:
    """A linked account as the store has it."""

    account_id: str
    owner_id: str | None
    owner_name: str | None
    username: str | None
    provider: str | None
    status: str | None
    status_reasons: Sequence[dict[str, Any]] | None
    label: str | None
    type: str | None
    created_at: datetime | None
    updated_at: datetime | None
    needs_reauth_since: datetime | None
    recovered_at: datetime | None
    verified_at: datetime | None
    read_ticket: int | None
    deleted_at: datetime | None
    refresh_due_at: datetime | None
    refresh_marks: int
    refresh_attempts: int
    claimed_until: datetime | None
    disconnect_requested_at: datetime | None
    disconnect_requested_by: str | None

    @property
    def usable(self) -> bool:
        """Whether calls to the provider can work."""
        return self.status in USABLE_STATUSES

    @property
    def needs_reauth(self) -> bool:
        """Whether the account works again only after somebody signs in to the provider anew."""
        return self.status in REAUTH_STATUSES


_FIELDS = tuple(_C[name] for name in LinkedAccount.__dataclass_fields__)


def from_row(row: sa.Row[Any]) -> LinkedAccount:
    """Build a LinkedAccount from a row of `columns()`."""
    return LinkedAccount(**row._mapping)  # noqa: SLF001  public by documentation, in spite of its name


def columns() -> Sequence[sa.ColumnElement[Any]]:
    """Return the columns that `from_row` takes, in its order."""
    return _FIELDS


async def take_read_ticket(connection: AsyncConnection) -> int:
    """Number a read of StackOne before it starts, so that its answer can be ordered among others.

    Numbers come from the database: clocks of replicas differ and jump.
    """
    return await advance(connection, _READS)


async def list_for_owner(
    connection: AsyncConnection,
    owner_id: str,
    *,
    providers: Sequence[str] = (),
    statuses: Sequence[str] = (),
    after: str | None = None,
    limit: int,
) -> list[LinkedAccount]:
    """Return up to `limit` accounts of one owner, ordered by account id, beginning after `after`."""
    query = sa.select(*_FIELDS).where(_C.owner_id == owner_id, _VISIBLE).order_by(_C.account_id).limit(limit)
    if providers:
        query = query.where(_C.provider.in_(providers))
    if statuses:
        query = query.where(_C.status.in_(statuses))
    if after is not None:
        query = query.where(_C.account_id > after)
    return [from_row(row) for row in await connection.execute(query)]


async def get_for_owner(connection: AsyncConnection, owner_id: str, account_id: str) -> LinkedAccount | None:
    """Return one account if it is this owner's."""
    query = sa.select(*_FIELDS).where(_C.owner_id == owner_id, _C.account_id == account_id, _VISIBLE)
    row = (await connection.execute(query)).one_or_none()
    return from_row(row) if row is not None else None


async def get_for_any_owner(connection: AsyncConnection, account_id: str) -> LinkedAccount | None:
    """Return one account, whoever owns it. For services only."""
    query = sa.select(*_FIELDS).where(_C.account_id == account_id, _VISIBLE)
    row = (await connection.execute(query)).one_or_none()
    return from_row(row) if row is not None else None


async def get_many_of_any_owner(connection: AsyncConnection, account_ids: Collection[str]) -> dict[str, LinkedAccount]:
    """Return the visible ones of these accounts, whoever owns them. For services only."""
    query = sa.select(*_FIELDS).where(_C.account_id.in_(account_ids), _VISIBLE)
    return {row.account_id: from_row(row) for row in await connection.execute(query)}


async def count_due_of_all_owners(connection: AsyncConnection) -> int:
    """Return how many accounts wait to be read again."""
    query = sa.select(sa.func.count()).where(_C.refresh_due_at.is_not(None), _C.deleted_at.is_(None))
    return int((await connection.execute(query)).scalar_one())


async def list_of_any_owner(
    connection: AsyncConnection, *, owner_id: str | None, provider: str | None, after: str | None, limit: int
) -> list[LinkedAccount]:
    """Return visible accounts in the order of their ids. For the command line only."""
    query = sa.select(*_FIELDS).where(_VISIBLE).order_by(_C.account_id).limit(limit)
    for column, value in ((_C.owner_id, owner_id), (_C.provider, provider)):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(_C.account_id > after)
    return [from_row(row) for row in await connection.execute(query)]


async def find_of_any_owner(connection: AsyncConnection, account_id: str) -> LinkedAccount | None:
    """Return whatever the store has of an account, tombstones included. For the command line only."""
    row = (await connection.execute(sa.select(*_FIELDS).where(_C.account_id == account_id))).one_or_none()
    return from_row(row) if row is not None else None
