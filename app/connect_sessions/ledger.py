"""The ledger: who opened which session, for whom, until when, and what came of it. Never a token."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.tables import connect_sessions, owners
from app.db.tables import upsert
from app.linked_accounts.changes import Kind
from app.linked_accounts.tables import account_events, linked_accounts

Mode = Literal["create", "edit"]
_S = connect_sessions.c
_E = account_events.c

# An account that was linked in a session's last minute may become known later than that.
GRACE = timedelta(minutes=10)


@dataclass(frozen=True)
class Session:
    """A row of the ledger."""

    id: str
    owner_id: str
    requested_by: str
    channel: str
    mode: Mode
    status: str
    provider: str | None
    account_id: str | None
    linked_account_id: str | None
    created_at: datetime
    expires_at: datetime
    multiple: bool


_FIELDS = tuple(_S[name] for name in Session.__dataclass_fields__)


async def pin_owner_name(
    connection: AsyncConnection, owner_id: str, owner_name: str, *, actor: str, now: datetime
) -> str:
    """Return the name under which StackOne knows the owner, fixing it at first use.

    StackOne keys accounts by owner id, owner name and provider: a company that renames itself would get a second
    account for everything it has linked.
    """
    statement = upsert(
        connection,
        owners,
        {"owner_id": owner_id, "owner_name": owner_name, "pinned_at": now, "pinned_by": actor},
    )
    await connection.execute(statement.on_conflict_do_nothing(index_elements=[owners.c.owner_id]))
    query = sa.select(owners.c.owner_name).where(owners.c.owner_id == owner_id)
    return str((await connection.execute(query)).scalar_one())


async def open_session(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """Write a session down before StackOne is asked for it."""
    await connection.execute(sa.insert(connect_sessions).values(values))


async def close_minting(
    connection: AsyncConnection, session_id: str, *, status: str, values: dict[str, Any] | None = None
) -> None:
    """Record how minting went: pending once StackOne gave a token, failed otherwise."""
    await connection.execute(
        sa.update(connect_sessions).where(_S.id == session_id).values(status=status, **(values or {}))
    )


async def get_session(connection: AsyncConnection, owner_id: str, session_id: str) -> Session | None:
    """Return one session if it is this owner's."""
    query = sa.select(*_FIELDS).where(_S.id == session_id, _S.owner_id == owner_id)
    row = (await connection.execute(query)).one_or_none()
    return Session(*row) if row is not None else None


def select_sessions() -> sa.Select[Any]:
    """Begin a query whose rows make a Session."""
    return sa.select(*_FIELDS)


async def get_upstream_id(connection: AsyncConnection, owner_id: str, session_id: str) -> str | None:
    """Return StackOne's id of one of the owner's sessions."""
    query = sa.select(_S.upstream_id).where(_S.id == session_id, _S.owner_id == owner_id)
    found = (await connection.execute(query)).scalar_one_or_none()
    return str(found) if found is not None else None


async def find_linked_account(connection: AsyncConnection, session: Session) -> str | None:
    """Return the account that a pending session led to, judged by owner, provider, account and time.

    StackOne's events and accounts do not name the session they come from, so this is a match and not a reference: an
    edit session is linked once its account was updated at StackOne, another by the first account that is new to the
    owner. Of sessions for further accounts (`multiple`), each needs an account of its own.
    """
    if session.mode == "edit":
        return await _edited_account(connection, session)
    query = (
        sa.select(_E.account_id)
        .join(linked_accounts, linked_accounts.c.account_id == _E.account_id)
        .where(
            _E.owner_id == session.owner_id,
            _E.position.is_not(None),
            _E.kind == Kind.LINKED.value,
            _E.at.between(session.created_at, session.expires_at + GRACE),
            linked_accounts.c.owner_id == session.owner_id,
            linked_accounts.c.deleted_at.is_(None),
        )
        .order_by(_E.position)
        .limit(1)
    )
    if session.provider is not None:
        query = query.where(linked_accounts.c.provider == session.provider)
    if session.multiple:
        taken = sa.select(_S.linked_account_id).where(
            _S.owner_id == session.owner_id, _S.linked_account_id.is_not(None), _S.id != session.id
        )
        query = query.where(_E.account_id.not_in(taken))
    found = (await connection.execute(query)).scalar_one_or_none()
    return str(found) if found is not None else None


async def _edited_account(connection: AsyncConnection, session: Session) -> str | None:
    """Return the account of an edit session once it has been edited.

    New credentials change nothing that a reading shows except `updated_at`; where StackOne's clock is behind ours, its
    event says it (and is written down at our own time).
    """
    hint = sa.exists().where(
        _E.account_id == session.account_id,
        _E.kind.in_([kind.value for kind in (Kind.HINT, Kind.UPDATED, Kind.RECOVERED)]),
        _E.at.between(session.created_at, session.expires_at + GRACE),
    )
    columns = linked_accounts.c
    query = sa.select(columns.account_id).where(
        columns.account_id == session.account_id,
        columns.owner_id == session.owner_id,
        columns.deleted_at.is_(None),
        columns.verified_at.is_not(None),
        columns.refresh_due_at.is_(None),
        sa.or_(hint, columns.updated_at.between(session.created_at, session.expires_at + GRACE)),
    )
    found = (await connection.execute(query)).scalar_one_or_none()
    return str(found) if found is not None else None


async def record_end(
    connection: AsyncConnection, session_id: str, *, status: str, account_id: str | None, now: datetime
) -> None:
    """End a pending session; one that has ended already stays as it is."""
    await connection.execute(
        sa.update(connect_sessions)
        .where(_S.id == session_id, _S.status.in_(("pending", "minting")))
        .values(status=status, linked_account_id=account_id, resolved_at=now)
    )
