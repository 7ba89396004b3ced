"""The list of an owner's sessions and auth links, for the backends that hand them out."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.ledger import OPEN, Session, is_live, select_sessions
from app.connect_sessions.queries import SessionsQuery, place
from app.connect_sessions.tables import Status, connect_sessions
from app.runtime import Runtime

_S = connect_sessions.c


async def list_sessions(runtime: Runtime, owner_id: str, query: SessionsQuery) -> tuple[Sequence[Session], bool]:
    """Return a page of an owner's sessions, the newest first, and whether there are more.

    How an open one stands is what was last written down; `GET` of the one session looks for news first.
    """
    now = runtime.clock.now()
    async with runtime.database.reading() as connection:
        sessions = await list_for_owner(connection, owner_id, query, now=now, limit=query.limit + 1)
    return [_standing(session, now) for session in sessions[: query.limit]], len(sessions) > query.limit


async def list_for_owner(
    connection: AsyncConnection, owner_id: str, query: SessionsQuery, *, now: datetime, limit: int
) -> list[Session]:
    """Return sessions of an owner from a place in the list on."""
    found = select_sessions().where(_S.owner_id == owner_id)
    if query.channel is not None:
        found = found.where(_S.channel == query.channel)
    if query.live:
        found = found.where(is_live(owner_id, now))
    if query.cursor is not None:
        created_at, session_id = place(query.cursor)
        older = sa.and_(_S.created_at == created_at, _S.id < session_id)
        found = found.where(sa.or_(_S.created_at < created_at, older))
    rows = await connection.execute(found.order_by(_S.created_at.desc(), _S.id.desc()).limit(limit))
    return [Session(*row) for row in rows]


def _standing(session: Session, now: datetime) -> Session:
    if session.status not in OPEN:
        return session
    if session.oauth_error_code is not None:
        return replace(session, status=Status.FAILED)
    return replace(session, status=Status.PENDING if session.expires_at > now else Status.EXPIRED)
