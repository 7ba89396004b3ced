"""Resolving sessions: pending becomes linked or expired by whatever news there is, whoever asks first.

A page that polls resolves its own session; for pages that never come back, housekeeping resolves what the change feed
has news about and what has ended.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.tables import connect_sessions

_S = connect_sessions.c
_OPEN = ("pending", "minting")


async def resolve(connection: AsyncConnection, session: Session, now: datetime) -> Session:
    """Return the session as it stands now, and write its end down.

    An ended session shows as expired at once, but that is written down only after a grace: an account that was linked
    in its last minute may become known later.
    """
    if session.status not in _OPEN:
        return session
    account_id = await ledger.find_linked_account(connection, session)
    if account_id is not None:
        await ledger.record_end(connection, session.id, status="linked", account_id=account_id, now=now)
        return replace(session, status="linked", linked_account_id=account_id)
    if session.expires_at > now:
        return replace(session, status="pending")
    if session.expires_at + ledger.GRACE <= now:
        await ledger.record_end(connection, session.id, status="expired", account_id=None, now=now)
    return replace(session, status="expired")


async def resolve_open_sessions(connection: AsyncConnection, owner_ids: Sequence[str], *, now: datetime) -> int:
    """Resolve the open sessions of these owners, oldest first; return how many there were."""
    query = ledger.select_sessions().where(_S.status.in_(_OPEN), _S.owner_id.in_(owner_ids)).order_by(_S.created_at)
    sessions = [Session(*row) for row in await connection.execute(query)]
    for session in sessions:
        await resolve(connection, session, now)
    return len(sessions)


async def resolve_ended_sessions(connection: AsyncConnection, *, now: datetime, limit: int) -> int:
    """Resolve sessions that ended more than a grace ago; return how many there were."""
    query = ledger.select_sessions().where(_S.status.in_(_OPEN), _S.expires_at <= now - ledger.GRACE)
    rows = (await connection.execute(query.order_by(_S.expires_at).limit(limit))).all()
    for row in rows:
        await resolve(connection, Session(*row), now)
    return len(rows)


async def forget_sessions(connection: AsyncConnection, *, now: datetime, retention: timedelta, limit: int) -> int:
    """Remove sessions that ended longer ago than the retention; return how many."""
    old = (
        sa.select(_S.id)
        .where(_S.expires_at <= now - retention, _S.status.not_in(_OPEN))
        .order_by(_S.expires_at)
        .limit(limit)
    )
    result = await connection.execute(sa.delete(connect_sessions).where(_S.id.in_(old)))
    return result.rowcount
