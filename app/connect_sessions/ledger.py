"""The ledger: who opened which session, for whom, until when, and what came of it. Never a token.

How much one owner may have open or linked is counted here too, for SQLite; migration 0006 has the same for PostgreSQL,
and `opening` runs either.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.tables import Mode, Status, connect_sessions, owners
from app.db.repeats import await_standby
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
    was_new: bool | None = None
    oauth_error_code: str | None = None
    oauth_error_description: str | None = None
    resolved_at: datetime | None = None


_STATUS = sa.func.coalesce(_S.ended_as, _S.status)
_FIELDS = tuple(_STATUS if name == "status" else _S[name] for name in Session.__dataclass_fields__)


async def pin_owner_name(
    connection: AsyncConnection, owner_id: str, owner_name: str, *, actor: str, now: datetime
) -> str:
    """Return the name under which StackOne knows the owner, fixing it at first use.

    StackOne keys accounts by owner id, owner name and provider: a company that renames itself would get a second
    account for everything it has linked. So the first pin takes the name of the live account that was updated last,
    where there is one: sessions of an owner who was there before the broker go on editing what is there.
    """
    of_account = (
        sa.select(_A.owner_name)
        .where(
            _A.owner_id == owner_id,
            _A.deleted_at.is_(None),
            _A.verified_at.is_not(None),
            _A.owner_name.is_not(None),
            _A.owner_name != "",
        )
        .order_by(_A.updated_at.desc(), _A.account_id)
        .limit(1)
        .scalar_subquery()
    )
    name = sa.func.coalesce(of_account, owner_name)
    statement = upsert(
        connection, owners, {"owner_id": owner_id, "owner_name": name, "pinned_at": now, "pinned_by": actor}
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


async def record_end(connection: AsyncConnection, session_id: str, status: Status, now: datetime) -> bool:
    """End an open session that linked nothing; one that has ended stays as it is. Return whether it ended now."""
    is_new_word = status in {Status.UNKNOWN, Status.ENDED}
    values = {"status": Status.EXPIRED, "ended_as": status} if is_new_word else {"status": status}
    ended = await connection.execute(
        sa.update(connect_sessions).where(_S.id == session_id, _S.status.in_(OPEN)).values(**values, resolved_at=now)
    )
    if ended.rowcount == 1:
        return True
    await await_standby(connection, connect_sessions, _S.id == session_id)
    return False


async def record_link(
    connection: AsyncConnection, session_id: str, account_id: str, *, was_new: bool, now: datetime, named: bool = False
) -> None:
    """Write down which account a session linked; what StackOne itself named corrects what was found before."""
    statement = sa.update(connect_sessions).where(_S.id == session_id)
    if not named:
        statement = statement.where(_S.status.in_(OPEN))
    values = {"status": Status.LINKED, "ended_as": None, "linked_account_id": account_id, "was_new": was_new}
    await connection.execute(statement.values(**values, resolved_at=now))


async def record_attempt(
    connection: AsyncConnection, session_id: str, *, error_code: str | None, error_description: str | None
) -> None:
    """Write down why the last OAuth attempt of an open session failed, or that it did not."""
    await connection.execute(
        sa.update(connect_sessions)
        .where(_S.id == session_id, _S.status.in_(OPEN))
        .values(oauth_error_code=error_code, oauth_error_description=error_description)
    )


def is_live(owner_id: str, now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a session of the owner may still link an account."""
    # A session that is still being minted counts: it will be live before the next request could see it.
    return sa.and_(_S.owner_id == owner_id, _S.status.in_(OPEN), _S.expires_at > now)


async def count_live_sessions(connection: AsyncConnection, owner_id: str, now: datetime) -> int:
    """Return how many sessions of the owner may still link an account."""
    query = sa.select(sa.func.count()).select_from(connect_sessions).where(is_live(owner_id, now))
    return int((await connection.execute(query)).scalar_one())


async def require_room_for_session(
    connection: AsyncConnection, owner_id: str, channel: Channel, *, most: int, now: datetime
) -> None:
    """Raise TooManyRequests, until the next one ends, if the owner has `most` live sessions, or auth links.

    Links live for days, so they are counted apart: a backend's many links must not keep the owner's users out.
    """
    is_link = _S.channel == Channel.AUTH_LINK if channel is Channel.AUTH_LINK else _S.channel != Channel.AUTH_LINK
    query = sa.select(sa.func.count(), sa.func.min(_S.expires_at)).where(is_live(owner_id, now), is_link)
    count, first_end = (await connection.execute(query)).one()
    if count >= most:
        raise too_many_sessions(channel, most, first_end, now)


def too_many_sessions(channel: Channel, most: int, first_end: datetime | None, now: datetime) -> TooManyRequests:
    """Say that an owner has as many sessions, or auth links, as it may have, and when the first of them ends."""
    what = "auth links" if channel is Channel.AUTH_LINK else "sessions"
    message = f"{most} {what} of this owner are open at once, which is the limit; end those that are not needed"
    return TooManyRequests(message, retry_after=((first_end or now) - now).total_seconds())


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
        raise too_many_accounts(most, accounts, rule)


def too_many_accounts(most: int, accounts: int, rule: str) -> Forbidden:
    """Say that an owner has, or may soon have, as many accounts of a provider as a rule allows."""
    message = (
        f'rule "{rule}" allows {most} account(s) of a provider: there are {accounts}, and open sessions that can'
        " make more; re-authenticate one with account_id, disconnect one, or let the open sessions end"
    )
    return Forbidden(message)


async def _count_accounts(connection: AsyncConnection, owner_id: str, provider: str) -> int:
    query = sa.select(sa.func.count()).where(_of_provider(owner_id, provider))
    return int((await connection.execute(query)).scalar_one())


def _of_provider(owner_id: str, provider: str) -> sa.ColumnElement[bool]:
    # One that only an event has spoken of so far counts as well: the read that verifies it is under way.
    return sa.and_(
        _A.owner_id == owner_id,
        # Whether StackOne tells "BambooHR" from "bamboohr" is not said: to a quota they are one.
        sa.func.lower(_A.provider) == provider.lower(),
        _A.deleted_at.is_(None),
        _A.disconnect_requested_at.is_(None),
    )


async def _live_creations(connection: AsyncConnection, owner_id: str, provider: str, now: datetime) -> tuple[int, bool]:
    """Return how many live sessions can each make a further account, and whether there are others that can make one."""
    query = sa.select(_S.multiple, sa.func.count(), sa.func.min(_S.created_at)).where(
        is_live(owner_id, now),
        _S.mode == Mode.CREATE,
        sa.or_(sa.func.lower(_S.provider) == provider.lower(), _S.provider.is_(None)),
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
