"""What sweeps and doctor ask the store about all owners: what was listed, what was not seen, what waits."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.slices import count_rows, slices
from app.linked_accounts.store import KNOWN
from app.linked_accounts.tables import account_events, linked_accounts

_C = linked_accounts.c


async def already_listed(connection: AsyncConnection, sweep_id: int, account_ids: Collection[str]) -> set[str]:
    """Return those of these accounts that an earlier page of the same sweep had."""
    query = sa.select(_C.account_id).where(_C.account_id.in_(account_ids), _C.swept_in == sweep_id)
    return {row.account_id for row in await connection.execute(query)}


async def buried(connection: AsyncConnection, account_ids: Collection[str]) -> list[str]:
    """Return those of these accounts that the store has as deleted although StackOne once showed them."""
    query = sa.select(_C.account_id).where(
        _C.account_id.in_(account_ids), _C.verified_at.is_not(None), _C.deleted_at.is_not(None)
    )
    return [row.account_id for row in await connection.execute(query.order_by(_C.account_id))]


async def living_owners(connection: AsyncConnection, account_ids: Collection[str]) -> dict[str, str | None]:
    """Return whose those of these accounts are that StackOne has vouched for and not taken back."""
    query = sa.select(_C.account_id, _C.owner_id).where(_C.account_id.in_(account_ids), KNOWN)
    return {row.account_id: row.owner_id for row in await connection.execute(query)}


def _is_suspect(sweep_id: int, start_ticket: int) -> sa.ColumnElement[bool]:
    # Whatever was read since the sweep began is known to have been there, listed or not.
    unlisted = sa.or_(_C.swept_in.is_(None), _C.swept_in != sweep_id)
    return sa.and_(KNOWN, unlisted, _C.read_ticket < start_ticket)


async def count_known_and_suspects(connection: AsyncConnection, sweep_id: int, start_ticket: int) -> tuple[int, int]:
    """Return how many accounts are known, and how many of them a sweep should have seen and did not."""
    known, suspects = await count_rows(connection, linked_accounts, KNOWN, _is_suspect(sweep_id, start_ticket))
    return known, suspects


async def all_suspects(connection: AsyncConnection, sweep_id: int, start_ticket: int) -> list[str]:
    """Return the accounts that a sweep should have seen and did not, in the order of their ids.

    One that is written to at this moment may be left out: an event spoke of it, so it is read anyway.
    """
    found: list[str] = []
    async for piece in slices(connection, linked_accounts):
        query = sa.select(_C.account_id).where(piece, _is_suspect(sweep_id, start_ticket))
        found.extend(row.account_id for row in await connection.execute(query))
    return sorted(found)


async def still_suspects(
    connection: AsyncConnection, sweep_id: int, start_ticket: int, among: Collection[str]
) -> list[str]:
    """Return those of some suspects that nobody has read meanwhile, in the order of their ids."""
    query = sa.select(_C.account_id).where(_C.account_id.in_(among), _is_suspect(sweep_id, start_ticket))
    return sorted(row.account_id for row in await connection.execute(query))


async def last_hint_at(connection: AsyncConnection) -> datetime | None:
    """Return when StackOne last told of anything."""
    query = sa.select(account_events.c.at).where(account_events.c.position.is_(None))
    row = (await connection.execute(query.order_by(account_events.c.at.desc()).limit(1))).one_or_none()
    return row.at if row is not None else None


async def oldest_due_at(connection: AsyncConnection) -> datetime | None:
    """Return since when the account that waits longest has been due."""
    query = sa.select(_C.refresh_due_at).where(_C.refresh_due_at.is_not(None), _C.deleted_at.is_(None))
    row = (await connection.execute(query.order_by(_C.refresh_due_at).limit(1))).one_or_none()
    return row.refresh_due_at if row is not None else None
