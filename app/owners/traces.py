"""What erasing an owner means for its accounts and their history."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit import entries
from app.linked_accounts.store import lock_in_order
from app.linked_accounts.tables import account_events, linked_accounts

_C = linked_accounts.c
_E = account_events.c
_ERASED_ACTOR = "user:erased"


@dataclass(frozen=True)
class Traces:
    """How much was cleared."""

    accounts: int
    events: int


async def living_accounts(connection: AsyncConnection, owner_id: str) -> list[str]:
    """Return the accounts of an owner that StackOne still has, as far as is known."""
    query = sa.select(_C.account_id).where(
        _C.owner_id == owner_id, _C.deleted_at.is_(None), _C.verified_at.is_not(None)
    )
    return [row.account_id for row in await connection.execute(query.order_by(_C.account_id))]


async def tombstones(connection: AsyncConnection, account_ids: Collection[str]) -> list[str]:
    """Return those of these accounts that are deleted as far as the store knows."""
    query = sa.select(_C.account_id).where(
        _C.account_id.in_(account_ids), _C.deleted_at.is_not(None), _C.verified_at.is_not(None)
    )
    return [row.account_id for row in await connection.execute(query.order_by(_C.account_id))]


async def living_elsewhere(connection: AsyncConnection, owner_id: str, account_ids: Collection[str]) -> list[str]:
    """Return those of these accounts that are another owner's, or nobody's, as far as the store knows."""
    query = sa.select(_C.account_id).where(
        _C.account_id.in_(account_ids),
        _C.owner_id.is_distinct_from(owner_id),
        _C.deleted_at.is_(None),
        _C.verified_at.is_not(None),
    )
    return [row.account_id for row in await connection.execute(query.order_by(_C.account_id))]


async def done_with(connection: AsyncConnection, account_id: str, _now: datetime) -> None:
    """Leave an erased account that is gone again as the tombstone that it is."""
    await connection.execute(sa.update(linked_accounts).where(_C.account_id == account_id).values(refresh_due_at=None))


async def begin_anew(connection: AsyncConnection, account_id: str, now: datetime) -> None:
    """Forget the past of an erased account that is another owner's now: the next read links it to that owner."""
    await connection.execute(
        sa.update(linked_accounts)
        .where(_C.account_id == account_id)
        .values(
            owner_id=None,
            provider=None,
            erasure_id=None,
            deleted_at=None,
            deletion_witness=None,
            verified_at=None,
            updated_at=None,
            refresh_due_at=now,
        )
    )


async def erase_traces(connection: AsyncConnection, owner_id: str, *, stand_in: str) -> Traces:
    """Clear every personal field of an owner's rows; `stand_in` takes the place of its id."""
    await lock_in_order(connection, _C.owner_id == owner_id)
    accounts = await connection.execute(
        sa.update(linked_accounts)
        .where(_C.owner_id == owner_id)
        .values(
            owner_id=stand_in,
            owner_name=None,
            username=None,
            confirmed_by=None,
            label=None,
            status_reasons=None,
            disconnect_requested_by=None,
            erasure_id=stand_in,
        )
    )
    events = await connection.execute(
        sa.update(account_events)
        .where(_E.owner_id == owner_id)
        .values(
            owner_id=stand_in,
            changes=None,
            actor=sa.case((_E.actor.startswith("user:"), _ERASED_ACTOR), else_=_E.actor),
        )
    )
    await entries.erase_of_owner(connection, owner_id, stand_in=stand_in)
    return Traces(accounts.rowcount, events.rowcount)
