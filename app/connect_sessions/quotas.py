"""How much one owner may have open or linked: exact, because the owner's row is locked while it is counted.

Everything here runs in the transaction that writes the session down, so that of many requests at once each sees the
sessions of those before it.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.tables import connect_sessions, owners
from app.errors import Forbidden, TooManyRequests
from app.linked_accounts.changes import Kind
from app.linked_accounts.tables import account_events, linked_accounts

_S = connect_sessions.c
_A = linked_accounts.c
_E = account_events.c


async def lock_owner(connection: AsyncConnection, owner_id: str) -> None:
    """Let nobody else open a session for the owner until the transaction ends; SQLite has one writer anyway."""
    await connection.execute(sa.select(owners.c.owner_id).where(owners.c.owner_id == owner_id).with_for_update())


def _live(owner_id: str, now: datetime) -> sa.ColumnElement[bool]:
    # A session that is still being minted counts: it will be live before the next request could see it.
    return sa.and_(_S.owner_id == owner_id, _S.status.in_(("minting", "pending")), _S.expires_at > now)


async def count_live_sessions(connection: AsyncConnection, owner_id: str, now: datetime) -> int:
    """Return how many sessions of the owner may still link an account."""
    query = sa.select(sa.func.count()).select_from(connect_sessions).where(_live(owner_id, now))
    return int((await connection.execute(query)).scalar_one())


async def require_room_for_session(connection: AsyncConnection, owner_id: str, *, most: int, now: datetime) -> None:
    """Raise TooManyRequests, until the next session ends, if the owner has `most` live sessions."""
    query = sa.select(sa.func.count(), sa.func.min(_S.expires_at)).where(_live(owner_id, now))
    count, first_end = (await connection.execute(query)).one()
    if count >= most:
        message = f"{most} sessions of this owner are open at once, which is the limit"
        raise TooManyRequests(message, retry_after=(first_end - now).total_seconds())


async def require_room_for_account(
    connection: AsyncConnection, owner_id: str, provider: str, *, most: int, multiple: bool, now: datetime, rule: str
) -> None:
    """Raise Forbidden if a session that may make an account of `provider` could make one too many.

    Sessions of which each may make an account count like the one it will be. Those that are not for a further account
    (`multiple`) make one between them, since StackOne opens what is there before it makes a second.
    """
    accounts = await _count_accounts(connection, owner_id, provider)
    further, others = await _live_creations(connection, owner_id, provider, now)
    expected = accounts + further + (1 if others and not accounts else 0)
    makes_one = multiple or not (accounts or others)
    if makes_one and expected >= most:
        message = (
            f'rule "{rule}" allows {most} account(s) of a provider: there are {accounts}, and open sessions that can'
            " make more; re-authenticate one with account_id, disconnect one, or let the open sessions end"
        )
        raise Forbidden(message)


async def _count_accounts(connection: AsyncConnection, owner_id: str, provider: str) -> int:
    query = sa.select(sa.func.count()).where(_of_provider(owner_id, provider))
    return int((await connection.execute(query)).scalar_one())


def _of_provider(owner_id: str, provider: str) -> sa.ColumnElement[bool]:
    # One that only an event has spoken of so far counts as well: the read that verifies it is under way.
    return sa.and_(
        _A.owner_id == owner_id,
        _A.provider == provider,
        _A.deleted_at.is_(None),
        _A.disconnect_requested_at.is_(None),
    )


async def _live_creations(connection: AsyncConnection, owner_id: str, provider: str, now: datetime) -> tuple[int, bool]:
    """Return how many live sessions can each make a further account, and whether there are others that can make one."""
    query = sa.select(_S.multiple, sa.func.count(), sa.func.min(_S.created_at)).where(
        _live(owner_id, now), _S.mode == "create", sa.or_(_S.provider == provider, _S.provider.is_(None))
    )
    found = await connection.execute(query.group_by(_S.multiple))
    rows = {bool(multiple): (int(count), first) for multiple, count, first in found}
    further, since = rows.get(True, (0, now))
    if further:
        # Some have made their account already without anybody having asked how they stand.
        further = max(0, further - await _count_new(connection, owner_id, provider, since))
    return further, False in rows


async def _count_new(connection: AsyncConnection, owner_id: str, provider: str, since: datetime) -> int:
    """Return how many accounts appeared since then that no session is known to have made."""
    known = sa.select(_S.linked_account_id).where(_S.owner_id == owner_id, _S.linked_account_id.is_not(None))
    query = (
        sa.select(sa.func.count(sa.distinct(_A.account_id)))
        .join_from(linked_accounts, account_events, _E.account_id == _A.account_id)
        .where(
            _of_provider(owner_id, provider), _E.kind == Kind.LINKED.value, _E.at >= since, _A.account_id.not_in(known)
        )
    )
    return int((await connection.execute(query)).scalar_one())
