"""Invitations in the database. How one stands follows from its row and from the sessions that it opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.tables import Status, connect_sessions
from app.db.counters import advance
from app.db.repeats import await_standby
from app.errors import TooManyRequests
from app.invitations.queries import InvitationsQuery
from app.invitations.tables import account_pins, invitation_openings, invitations

_I = invitations.c
_O = invitation_openings.c
_S = connect_sessions.c
# Its row is locked until the transaction ends, so that invitations are counted and made one after another.
_POSITION = "invitations"


class Standing(Enum):
    """How an invitation stands."""

    INVITED = "invited"
    OPENED = "opened"
    LINKED = "linked"
    ENDED = "ended"
    EXPIRED = "expired"


LIVE = (Standing.INVITED, Standing.OPENED)


@dataclass(frozen=True)
class Invitation:
    """An invitation: for whom it is, what it is for, and until when."""

    id: str
    owner_id: str
    requested_by: str
    provider: str | None
    account_id: str | None
    username: str | None
    return_url: str | None
    created_at: datetime
    expires_at: datetime
    position: int = 0
    ended_at: datetime | None = None
    ended_by: str | None = None
    linked_at: datetime | None = None
    linked_by: str | None = None
    linked_account_id: str | None = None
    opened_at: datetime | None = None
    opened_by: str | None = None

    def standing(self, now: datetime) -> Standing:
        """Return how it stands."""
        if self.linked_at is not None:
            return Standing.LINKED
        if self.ended_at is not None:
            return Standing.ENDED
        if self.expires_at <= now:
            return Standing.EXPIRED
        return Standing.INVITED if self.opened_at is None else Standing.OPENED


# The last fields of an Invitation, in their order: they come from its openings.
_LAST = ("opened_at", "opened_by")
_COLUMNS = tuple(name for name in Invitation.__dataclass_fields__ if name not in _LAST)
_last_opening = {
    name: sa.select(_O[name])
    .where(_O.invitation_id == _I.id)
    .order_by(_O.opened_at.desc(), _O.session_id)
    .limit(1)
    .scalar_subquery()
    for name in _LAST
}
_SELECT = sa.select(*(_I[name] for name in _COLUMNS), *(_last_opening[name].label(name) for name in _LAST))


async def lock_invitations(connection: AsyncConnection) -> int:
    """Let nobody else make an invitation until the transaction ends; return a position for one."""
    return await advance(connection, _POSITION)


async def insert_invitation(
    connection: AsyncConnection, invitation: Invitation, *, most_live: int, now: datetime
) -> None:
    """Write an invitation down. Raises TooManyRequests, until the next one expires, if the owner has `most_live`."""
    position = await lock_invitations(connection)
    live = sa.select(sa.func.count(), sa.func.min(_I.expires_at)).where(_is_live(invitation.owner_id, now))
    count, first_end = (await connection.execute(live)).one()
    if count >= most_live:
        message = f"{most_live} invitations of this owner are open at once, which is the limit; end those not needed"
        raise TooManyRequests(message, retry_after=(first_end - now).total_seconds())
    values = {name: getattr(invitation, name) for name in _COLUMNS}
    await connection.execute(sa.insert(invitations).values({**values, "position": position}))


def _is_live(owner_id: str, now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(_I.owner_id == owner_id, _I.ended_at.is_(None), _I.linked_at.is_(None), _I.expires_at > now)


async def get_of_any_owner(connection: AsyncConnection, invitation_id: str) -> Invitation | None:
    """Return an invitation by its id: whoever opens it has yet to prove that it is theirs."""
    row = (await connection.execute(_SELECT.where(_I.id == invitation_id))).one_or_none()
    return Invitation(*row) if row is not None else None


async def get_for_owner(connection: AsyncConnection, owner_id: str, invitation_id: str) -> Invitation | None:
    """Return an invitation if it is this owner's."""
    found = await get_of_any_owner(connection, invitation_id)
    return found if found is not None and found.owner_id == owner_id else None


async def list_for_owner(
    connection: AsyncConnection, owner_id: str, query: InvitationsQuery, *, now: datetime, limit: int
) -> Sequence[Invitation]:
    """Return invitations of an owner from a place in their list on, the newest first."""
    found = _SELECT.where(_is_live(owner_id, now) if query.live else _I.owner_id == owner_id)
    if query.cursor is not None:
        found = found.where(_I.position < int(query.cursor))
    rows = await connection.execute(found.order_by(_I.position.desc()).limit(limit))
    return [Invitation(*row) for row in rows]


async def find_live(
    connection: AsyncConnection,
    owner_id: str,
    *,
    provider: str | None,
    account_id: str | None,
    username: str | None,
    until: datetime,
) -> Invitation | None:
    """Return the owner's newest invitation for the same that is still live at `until` and returns nowhere."""
    query = _SELECT.where(
        _is_live(owner_id, until),
        _I.provider.is_not_distinct_from(provider),
        _I.account_id.is_not_distinct_from(account_id),
        _I.username.is_not_distinct_from(username),
        _I.return_url.is_(None),
    )
    row = (await connection.execute(query.order_by(_I.position.desc()).limit(1))).one_or_none()
    return Invitation(*row) if row is not None else None


async def record_end(connection: AsyncConnection, invitation_id: str, *, actor: str, now: datetime) -> None:
    """End an invitation that is live."""
    is_open = sa.and_(_I.id == invitation_id, _I.ended_at.is_(None), _I.linked_at.is_(None), _I.expires_at > now)
    ended = await connection.execute(sa.update(invitations).where(is_open).values(ended_at=now, ended_by=actor))
    if not ended.rowcount:
        await await_standby(connection, invitations, _I.id == invitation_id)


async def record_opening(
    connection: AsyncConnection, invitation: Invitation, session_id: str, *, opened_by: str, now: datetime
) -> None:
    """Write down which session an invitation opened, and who opened it."""
    await connection.execute(
        sa.insert(invitation_openings).values(
            session_id=session_id,
            invitation_id=invitation.id,
            owner_id=invitation.owner_id,
            opened_by=opened_by,
            opened_at=now,
        )
    )


async def open_sessions(
    connection: AsyncConnection, invitation_id: str, *, most: int, opened_by: str | None = None
) -> list[str]:
    """Return an invitation's latest sessions, of anybody or one user, that may still link an account."""
    query = (
        sa.select(_S.id)
        .join(invitation_openings, _O.session_id == _S.id)
        .where(_O.invitation_id == invitation_id, _S.status.in_([Status.MINTING, Status.PENDING]))
        .order_by(_O.opened_at.desc())
        .limit(most)
    )
    if opened_by is not None:
        query = query.where(_O.opened_by == opened_by)
    return [str(row.id) for row in await connection.execute(query)]


async def record_links(connection: AsyncConnection, *conditions: sa.ColumnElement[bool], limit: int) -> int:
    """Write down which invitations led to a linked account, in the order of their links; return how many did."""
    query = (
        sa.select(_I.id, _O.opened_by, _S.linked_account_id, _S.resolved_at)
        .join(invitation_openings, _O.invitation_id == _I.id)
        .join(connect_sessions, _S.id == _O.session_id)
        .where(_I.linked_at.is_(None), _S.status == Status.LINKED, *conditions)
        .order_by(_S.resolved_at)
        .limit(limit)
    )
    rows = (await connection.execute(query)).all()
    for invitation_id, opened_by, account_id, resolved_at in rows:
        await connection.execute(
            sa.update(invitations)
            .where(_I.id == invitation_id, _I.linked_at.is_(None))
            .values(linked_at=resolved_at, linked_by=opened_by, linked_account_id=account_id)
        )
    return len(rows)


def is_owners(owner_id: str) -> sa.ColumnElement[bool]:
    """Return the condition that an invitation is this owner's."""
    return _I.owner_id == owner_id


def is_one(invitation_id: str) -> sa.ColumnElement[bool]:
    """Return the condition that it is this invitation."""
    return _I.id == invitation_id


def expires_after(moment: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that an invitation expires, or expired, after a moment."""
    return _I.expires_at > moment


async def forget_invitations(connection: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Remove invitations that expired before a moment, with what is known of their openings; return how many."""
    ids = sa.select(_I.id).where(_I.expires_at < before).order_by(_I.expires_at).limit(limit)
    old = [row.id for row in await connection.execute(ids)]
    await connection.execute(sa.delete(invitation_openings).where(_O.invitation_id.in_(old)))
    await connection.execute(sa.delete(invitations).where(_I.id.in_(old)))
    return len(old)


async def erase_of_owner(connection: AsyncConnection, owner_id: str) -> None:
    """Remove everything about an owner's invitations and pinned accounts."""
    for table in (invitation_openings, invitations, account_pins):
        statement: Any = sa.delete(table).where(table.c.owner_id == owner_id)
        await connection.execute(statement)
