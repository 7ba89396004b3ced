"""Opening: an owner's name is pinned, its quotas are held and the session is written down, all or nothing.

The owner's row is locked meanwhile, so that of many requests at once each sees the sessions of those before it. On
PostgreSQL that is one statement, a function of the migrations; SQLite does the same steps in a transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.tables import Status, connect_sessions
from app.db.database import Database
from app.db.statements import Statement
from app.db.tables import Json, UtcDateTime
from app.linked_accounts.store import (
    SOME_OF_PROVIDER,
    LinkedAccount,
    list_of_provider_for_owner,
    of_provider,
)

_S = connect_sessions.c
_OUTCOME_COLUMNS: Final = 6


@dataclass(frozen=True)
class Opening:
    """A session to be written down, and what its owner may have."""

    session: Session
    owner_name: str
    most_live: int
    """How many sessions, or auth links, may be open."""
    most_accounts: int | None = None
    """How many accounts of its provider there may be; None where no rule says so, and for what makes none."""
    rule: str | None = None
    categories: Sequence[str] | None = None


_PARAMETERS: Final[dict[str, TypeEngine[Any]]] = {
    "session": Json,
    "owner_name": sa.Text(),
    "now": UtcDateTime(),
    "most_live": sa.Integer(),
    "most_accounts": sa.Integer(),
}


def _outcome(function: str, *more: sa.ColumnClause[Any]) -> sa.TableValuedAlias:
    parameters = (sa.bindparam(name, type_=type_) for name, type_ in _PARAMETERS.items())
    called: sa.Function[Any] = getattr(sa.func, function)(*parameters)
    return called.table_valued(
        sa.column("pinned_name", sa.Text),
        sa.column("opened", sa.Boolean),
        sa.column("live", sa.BigInteger),
        sa.column("first_end", UtcDateTime()),
        sa.column("accounts", sa.BigInteger),
        *more,
    )


def _open_unless_linked() -> Statement:
    outcome = _outcome("open_connect_session_unless_linked", sa.column("linked", sa.Boolean))
    accounts = SOME_OF_PROVIDER.where(outcome.c.linked).lateral("linked_account")
    return Statement(sa.select(*outcome.c, *accounts.c).select_from(outcome.outerjoin(accounts, sa.true())))


_OPEN: Final = Statement(sa.select(*_outcome("open_connect_session").c))
_OPEN_UNLESS_LINKED: Final = _open_unless_linked()


async def write_down_unless_linked(
    database: Database, opening: Opening, *, most: int
) -> tuple[str | None, Sequence[LinkedAccount]]:
    """Write a session for a provider down if its owner has no account of it, and return the name that is pinned.

    Otherwise no name but up to `most` of the accounts are returned, and nothing is written. Raises as `write_down`.
    """
    session = opening.session
    assert session.provider is not None  # noqa: S101  so says the caller
    if database.dialect == "sqlite":
        known = await list_of_provider_for_owner(database, session.owner_id, session.provider, limit=most)
        return (None, known) if known else (await _step_by_step(database, opening), [])
    parameters = {**_parameters(opening), **of_provider(session.owner_id, session.provider, limit=most)}
    rows = await database.fetch(_OPEN_UNLESS_LINKED, parameters)
    name, opened, live, first_end, accounts, linked, *_account = rows[0]
    if not linked:
        return _pinned(opening, name, live, first_end, accounts, opened=opened), []
    known = [LinkedAccount(*row[_OUTCOME_COLUMNS:]) for row in rows if row[_OUTCOME_COLUMNS] is not None]
    # One that was verified while the statement ran is seen by the function, and not by the query around it.
    return None, known or await list_of_provider_for_owner(database, session.owner_id, session.provider, limit=most)


async def write_down(database: Database, opening: Opening) -> str:
    """Write a session down and return the name that is pinned for its owner.

    Raises TooManyRequests or Forbidden where the owner has as much as it may have; nothing is written then.
    """
    if database.dialect == "sqlite":
        return await _step_by_step(database, opening)
    ((name, opened, live, first_end, accounts),) = await database.fetch(_OPEN, _parameters(opening))
    return _pinned(opening, name, live, first_end, accounts, opened=opened)


def _pinned(
    opening: Opening,
    name: str,
    live: int,
    first_end: datetime,
    accounts: int,
    *,
    opened: bool,
) -> str:
    session = opening.session
    if not opened and live >= opening.most_live:
        raise ledger.too_many_sessions(session.channel, opening.most_live, first_end, session.created_at)
    if not opened:
        raise ledger.too_many_accounts(opening.most_accounts or 0, accounts, opening.rule or "")
    return str(name)


def _parameters(opening: Opening) -> dict[str, Any]:
    return {
        "session": _row(opening),
        "owner_name": opening.owner_name,
        "now": opening.session.created_at,
        "most_live": opening.most_live,
        "most_accounts": opening.most_accounts,
    }


def _row(opening: Opening) -> dict[str, Any]:
    """Return the row as JSON, under the names of its columns."""
    session = opening.session
    return {
        "id": session.id,
        "owner_id": session.owner_id,
        "requested_by": session.requested_by,
        connect_sessions.c.channel.name: session.channel.value,
        "mode": session.mode.value,
        "status": session.status.value,
        "provider": session.provider,
        "categories": opening.categories,
        "account_id": session.account_id,
        "multiple": session.multiple,
        "policy_rule": opening.rule,
        "created_at": session.created_at.isoformat(),
        "expires_at": session.expires_at.isoformat(),
    }


async def _step_by_step(database: Database, opening: Opening) -> str:
    session = opening.session
    owner_id, now = session.owner_id, session.created_at
    async with database.transaction() as connection:
        name = await ledger.pin_owner_name(
            connection, owner_id, opening.owner_name, actor=session.requested_by, now=now
        )
        await ledger.require_room_for_session(connection, owner_id, session.channel, most=opening.most_live, now=now)
        if opening.most_accounts is not None and session.provider is not None:
            await ledger.require_room_for_account(
                connection,
                owner_id,
                session.provider,
                most=opening.most_accounts,
                multiple=session.multiple,
                now=now,
                rule=opening.rule or "",
            )
        await ledger.insert_session(connection, session, categories=opening.categories, policy_rule=opening.rule)
    return name


@dataclass(frozen=True)
class Closing:
    """How minting went: pending, with StackOne's id, once it gave a token, failed otherwise."""

    session_id: str
    status: Status
    upstream_id: str | None = None


def _closing() -> Statement:
    fields = {"session_id": sa.Text(), "status": sa.Text(), "upstream_id": sa.Text()}
    arrays = (sa.bindparam(name, type_=ARRAY(type_)) for name, type_ in fields.items())
    columns = (sa.column(name, type_) for name, type_ in fields.items())
    closed = sa.func.unnest(*arrays).table_valued(*columns, name="closed").render_derived()
    updated = (
        sa.update(connect_sessions)
        .where(_S.id == closed.c.session_id)
        .values(status=closed.c.status, upstream_id=closed.c.upstream_id)
        .returning(_S.id)
        .cte("updated")
    )
    return Statement(sa.select(updated.c.id))


_CLOSE: Final = _closing()


async def close_minting(database: Database, closings: Sequence[Closing]) -> Sequence[None]:
    """Record how minting went of some sessions; a group commit, since no token leaves before it."""
    if database.dialect == "postgresql":
        ids = [closing.session_id for closing in closings]
        statuses = [closing.status.value for closing in closings]
        upstream_ids = [closing.upstream_id for closing in closings]
        await database.fetch(_CLOSE, {"session_id": ids, "status": statuses, "upstream_id": upstream_ids})
    else:
        async with database.transaction() as connection:
            for closing in closings:
                values = {"status": closing.status, "upstream_id": closing.upstream_id}
                await connection.execute(
                    sa.update(connect_sessions).where(_S.id == closing.session_id).values(**values)
                )
    return [None] * len(closings)
