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
from app.connect_sessions.ledger import OPEN, Session
from app.connect_sessions.tables import Mode, Status, connect_sessions
from app.errors import NotFound
from app.linked_accounts.changes import Kind
from app.linked_accounts.tables import account_events, linked_accounts
from app.runtime import Runtime

_S = connect_sessions.c
_A = linked_accounts.c
_E = account_events.c

# An account that was linked in a session's last minute may become known later than that.
GRACE = timedelta(minutes=10)


async def resolve_session(runtime: Runtime, owner_id: str, session_id: str) -> Session:
    """Return how a session of the owner stands, and write its end down if there is news.

    Raises NotFound alike for an unknown session and for somebody else's.
    """
    async with runtime.database.transaction() as connection:
        session = await ledger.get_session(connection, owner_id, session_id)
        if session is None:
            raise NotFound
        return await resolve(connection, session, runtime.clock.now())


async def resolve(connection: AsyncConnection, session: Session, now: datetime) -> Session:
    """Return the session as it stands now, and write its end down.

    An ended session shows as expired at once, but that is written down only after a grace: an account that was linked
    in its last minute may become known later.
    """
    if session.status not in OPEN:
        return session
    account_id = await find_linked_account(connection, session)
    if account_id is not None:
        await ledger.record_end(connection, session.id, status=Status.LINKED, account_id=account_id, now=now)
        return replace(session, status=Status.LINKED, linked_account_id=account_id)
    if session.expires_at > now:
        return replace(session, status=Status.PENDING)
    if session.expires_at + GRACE <= now:
        await ledger.record_end(connection, session.id, status=Status.EXPIRED, account_id=None, now=now)
    return replace(session, status=Status.EXPIRED)


async def find_linked_account(connection: AsyncConnection, session: Session) -> str | None:
    """Return the account that a pending session led to, judged by owner, provider, account and time.

    StackOne's events and accounts do not name the session they come from, so this is a match and not a reference: an
    edit session is linked once its account was updated at StackOne, another by the first account that is new to the
    owner. Of sessions for further accounts (`multiple`), each needs an account of its own.
    """
    if session.mode is Mode.EDIT:
        return await _edited_account(connection, session)
    query = (
        sa.select(_E.account_id)
        .join(linked_accounts, _A.account_id == _E.account_id)
        .where(
            _E.owner_id == session.owner_id,
            _E.position.is_not(None),
            _E.kind == Kind.LINKED.value,
            _E.at.between(session.created_at, session.expires_at + GRACE),
            _A.owner_id == session.owner_id,
            _A.deleted_at.is_(None),
        )
        .order_by(_E.position)
        .limit(1)
    )
    if session.provider is not None:
        query = query.where(_A.provider == session.provider)
    if session.multiple:
        made_by_others = sa.select(_S.linked_account_id).where(
            _S.owner_id == session.owner_id, _S.linked_account_id.is_not(None), _S.id != session.id
        )
        query = query.where(_E.account_id.not_in(made_by_others))
    found = (await connection.execute(query)).scalar_one_or_none()
    return str(found) if found is not None else None


async def _edited_account(connection: AsyncConnection, session: Session) -> str | None:
    """Return the account of an edit session once it has been edited.

    New credentials change nothing that a read shows except `updated_at`; where StackOne's clock is behind ours, its
    event says it (and is written down at our own time).
    """
    hint = sa.exists().where(
        _E.account_id == session.account_id,
        _E.kind.in_([kind.value for kind in (Kind.HINT, Kind.UPDATED, Kind.RECOVERED)]),
        _E.at.between(session.created_at, session.expires_at + GRACE),
    )
    query = sa.select(_A.account_id).where(
        _A.account_id == session.account_id,
        _A.owner_id == session.owner_id,
        _A.deleted_at.is_(None),
        _A.verified_at.is_not(None),
        _A.refresh_due_at.is_(None),
        sa.or_(hint, _A.updated_at.between(session.created_at, session.expires_at + GRACE)),
    )
    found = (await connection.execute(query)).scalar_one_or_none()
    return str(found) if found is not None else None


async def resolve_open_sessions(connection: AsyncConnection, owner_ids: Sequence[str], *, now: datetime) -> int:
    """Resolve the open sessions of these owners, oldest first; return how many there were."""
    query = ledger.select_sessions().where(_S.status.in_(OPEN), _S.owner_id.in_(owner_ids)).order_by(_S.created_at)
    sessions = [Session(*row) for row in await connection.execute(query)]
    for session in sessions:
        await resolve(connection, session, now)
    return len(sessions)


async def resolve_ended_sessions(connection: AsyncConnection, *, now: datetime, limit: int) -> int:
    """Resolve sessions that ended more than a grace ago; return how many there were."""
    query = ledger.select_sessions().where(_S.status.in_(OPEN), _S.expires_at <= now - GRACE)
    rows = (await connection.execute(query.order_by(_S.expires_at).limit(limit))).all()
    for row in rows:
        await resolve(connection, Session(*row), now)
    return len(rows)


async def forget_sessions(connection: AsyncConnection, *, now: datetime, retention: timedelta, limit: int) -> int:
    """Remove sessions that ended longer ago than the retention; return how many."""
    old = (
        sa.select(_S.id)
        .where(_S.expires_at <= now - retention, _S.status.not_in(OPEN))
        .order_by(_S.expires_at)
        .limit(limit)
    )
    result = await connection.execute(sa.delete(connect_sessions).where(_S.id.in_(old)))
    return result.rowcount
