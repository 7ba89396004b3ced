"""The change feed: every change of every account, once and in order, for whoever remembers how far it has read.

Gap-free under concurrent writers because a position is drawn from a counter whose row stays locked until its
transaction ends (`append_changes`): when a position can be read, every lower one can be read too.
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.identity.caller import Service
from app.linked_accounts.queries import EventsQuery
from app.linked_accounts.store import LinkedAccount, get_many_of_any_owner
from app.linked_accounts.tables import account_events
from app.runtime import Runtime

_E = account_events.c
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Entry:
    """One change, and the account as it is now where it still is the same owner's."""

    position: int
    kind: str
    account_id: str
    owner_id: str | None
    provider: str | None
    at: datetime
    source: str
    actor: str
    changes: dict[str, Any] | None
    account: LinkedAccount | None = None


_FIELDS = tuple(_E[name] for name in Entry.__dataclass_fields__ if name != "account")


async def read_feed(
    connection: AsyncConnection, *, after: int, limit: int, owner_ids: Collection[str] | None = None
) -> list[Entry]:
    """Return up to `limit` changes behind a position, of these owners or of all."""
    query = sa.select(*_FIELDS).where(_E.position > after).order_by(_E.position).limit(limit)
    if owner_ids is not None:
        query = query.where(_E.owner_id.in_(owner_ids))
    return await _with_accounts(connection, query)


async def read_entries(connection: AsyncConnection, positions: Collection[int]) -> list[Entry]:
    """Return the changes at these positions, in order."""
    return await _with_accounts(connection, sa.select(*_FIELDS).where(_E.position.in_(positions)).order_by(_E.position))


async def _with_accounts(connection: AsyncConnection, query: sa.Select[*tuple[Any, ...]]) -> list[Entry]:
    rows = (await connection.execute(query)).all()
    accounts = await get_many_of_any_owner(connection, {row.account_id for row in rows}) if rows else {}
    entries = []
    for row in rows:
        account = accounts.get(row.account_id)
        # An owner whose account moved on learns that it left, not what became of it.
        shown = account if account is not None and account.owner_id == row.owner_id else None
        entries.append(replace(Entry(*row), account=shown))
    return entries


async def read_events(runtime: Runtime, caller: Service, query: EventsQuery) -> list[Entry]:
    """Read the feed for a service, waiting for a first change as long as it asks; no connection is held meanwhile.

    Ends early where the process is stopping: a wait must not hold its end up, and the reader may ask elsewhere. Where
    too many wait already, in all or with the same credential, it does not wait: each holds a connection.
    """
    with _waiting(runtime, caller) as may_wait:
        deadline = runtime.clock.monotonic() + (query.wait if may_wait else 0)
        while True:
            async with runtime.database.reading() as connection:
                entries = await read_feed(connection, after=query.after, limit=query.limit, owner_ids=caller.owner_ids)
            left = deadline - runtime.clock.monotonic()
            if entries or left <= 0 or runtime.stopping.is_set():
                return entries
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_POLL_SECONDS, left)):
                    await runtime.stopping.wait()


@contextmanager
def _waiting(runtime: Runtime, caller: Service) -> Iterator[bool]:
    """Count a reader that may wait; the value is whether it may."""
    most = max(1, runtime.settings.http.max_connections // 4)
    mine = runtime.waiting[caller.actor]
    may_wait = runtime.waiting.total() < most and mine < max(1, most // 4)
    if may_wait:
        runtime.waiting[caller.actor] += 1
    try:
        yield may_wait
    finally:
        if may_wait:
            runtime.waiting[caller.actor] -= 1
            # Forgets credentials that wait for nothing.
            if runtime.waiting[caller.actor] <= 0:
                del runtime.waiting[caller.actor]


async def last_position(connection: AsyncConnection) -> int:
    """Return the position of the newest change, 0 where there is none."""
    return int((await connection.execute(sa.select(sa.func.coalesce(sa.func.max(_E.position), 0)))).scalar_one())


async def history(connection: AsyncConnection, account_id: str) -> list[dict[str, Any]]:
    """Return everything that is written down about an account, hints included, oldest first."""
    fields = (_E.at, _E.kind, _E.source, _E.actor, _E.owner_id, _E.position, _E.changes)
    query = sa.select(*fields).where(_E.account_id == account_id).order_by(_E.id)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def forget_hints(connection: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Remove hints that are older than a moment; changes of the feed are kept. Return how many were removed."""
    old = sa.select(_E.id).where(_E.position.is_(None), _E.at < before).order_by(_E.at).limit(limit)
    result = await connection.execute(sa.delete(account_events).where(_E.id.in_(old)))
    return result.rowcount
