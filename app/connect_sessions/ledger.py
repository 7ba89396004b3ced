"""The ledger: who opened which session, for whom, until when, and what came of it. Never a token.

How much one owner may have open or linked is counted here too, in the transaction that writes the session down. The
owner's row is locked meanwhile, so that of many requests at once each sees the sessions of those before it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.tables import Mode, Status, connect_sessions, owners
from app.db.tables import upsert
from app.errors import Forbidden, TooManyRequests
from app.linked_accounts.changes import Kind
from app.linked_accounts.tables import account_events, linked_accounts
from app.policy.rules import Channel

_S = connect_sessions.c
_A = linked_accounts.c
_E = account_events.c

# Statuses of sessions that may still link an account.
OPEN = (Status.MINTING, Status.PENDING)


@dataclass(frozen=True)
class Session:
    """A row of the ledger."""

    id: str
    owner_id: str
    requested_by: str
    channel: Channel
    mode: Mode
    status: Status
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


async def lock_owner(connection: AsyncConnection, owner_id: str) -> None:
    """Let nobody else open a session for the owner until the transaction ends; SQLite has one writer anyway."""
    await connection.execute(sa.select(owners.c.owner_id).where(owners.c.owner_id == owner_id).with_for_update())


async def insert_session(connection: AsyncConnection, session: Session, **columns: Any) -> None:
    """Write a session down before StackOne is called; `columns` are those that nobody reads back."""
    values = {name: getattr(session, name) for name in Session.__dataclass_fields__}
    await connection.execute(sa.insert(connect_sessions).values({**values, **columns}))


async def close_minting(
    connection: AsyncConnection, session_id: str, *, status: Status, upstream_id: str | None = None
) -> None:
    """Record how minting went: pending once StackOne gave a token, failed otherwise."""
    await connection.execute(
        sa.update(connect_sessions).where(_S.id == session_id).values(status=status, upstream_id=upstream_id)
    )


async def get_session(connection: AsyncConnection, owner_id: str, session_id: str) -> Session | None:
    """Return one session if it is this owner's."""
    query = select_sessions().where(_S.id == session_id, _S.owner_id == owner_id)
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


async def record_end(
    connection: AsyncConnection, session_id: str, *, status: Status, account_id: str | None, now: datetime
) -> None:
    """End an open session; one that has ended already stays as it is."""
    await connection.execute(
        sa.update(connect_sessions)
        .where(_S.id == session_id, _S.status.in_(OPEN))
        .values(status=status, linked_account_id=account_id, resolved_at=now)
    )


def _live(owner_id: str, now: datetime) -> sa.ColumnElement[bool]:
    # A session that is still being minted counts: it will be live before the next request could see it.
    return sa.and_(_S.owner_id == owner_id, _S.status.in_(OPEN), _S.expires_at > now)


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
        _live(owner_id, now), _S.mode == Mode.CREATE, sa.or_(_S.provider == provider, _S.provider.is_(None))
    )
    found = await connection.execute(query.group_by(_S.multiple))
    rows = {bool(multiple): (int(count), first) for multiple, count, first in found}
    further, since = rows.get(True, (0, now))
    if further:
        # Some have made their account already although nobody has polled them since.
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
