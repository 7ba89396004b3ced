"""The change feed: every change of every account, once and in order, for whoever remembers how far it has read.

Gap-free under concurrent writers because a position is drawn from a counter whose row stays locked until its
transaction ends (`append_changes`): when a position can be read, every lower one can be read too.
"""

import asyncio
import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.counters import counter_value, counters, raise_counter
from app.db.database import Database
from app.db.statements import Statement
from app.errors import Gone, NotFound
from app.identity.caller import Scope, Service
from app.linked_accounts.queries import AccountEventsQuery, EventsQuery
from app.linked_accounts.store import VISIBLE, LinkedAccount, columns
from app.linked_accounts.tables import account_events, linked_accounts
from app.runtime import Runtime

_E = account_events.c
_A = linked_accounts.c
_POLL_SECONDS = 0.5
FLOOR = "feed_floor"
"""The counter of the highest position that was thrown away by age."""
_REMEDY = "start anew from GET /v1/accounts?snapshot=true and its feed_position"
_RESTORED = f"the database seems to have been restored from an older copy; {_REMEDY}"


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
# An owner whose account moved on learns that it left, not what became of it.
_SHOWN = sa.and_(_A.account_id == _E.account_id, _A.owner_id == _E.owner_id, VISIBLE)
_ENTRIES = (
    sa.select(*_FIELDS, *columns()).select_from(account_events.outerjoin(linked_accounts, _SHOWN)).order_by(_E.position)
)
_BEHIND = _ENTRIES.where(_E.position > sa.bindparam("after", type_=sa.BigInteger)).limit(
    sa.bindparam("limit", type_=sa.Integer)
)
_HEAD = sa.select(sa.func.max(_E.position)).correlate(None).scalar_subquery()
_FLOOR_NOW = sa.select(counters.c.value).where(counters.c.name == FLOOR).scalar_subquery()
_PAGE: Final = Statement(
    _ENTRIES.add_columns(_HEAD, _FLOOR_NOW)
    .where(_E.position >= sa.bindparam("after", type_=sa.BigInteger))
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def _entry(row: Sequence[Any]) -> Entry:
    account = row[len(_FIELDS) :]
    # The first of its fields is its id.
    shown = LinkedAccount(*account) if account[0] is not None else None
    return Entry(*(*row[: len(_FIELDS)], shown))


async def read_feed(
    connection: AsyncConnection,
    *,
    after: int,
    limit: int,
    owner_ids: Collection[str] | None = None,
    kinds: Collection[str] = (),
    account_id: str | None = None,
) -> list[Entry]:
    """Return up to `limit` changes behind a position, of these owners or of all, of these kinds or any."""
    query = _BEHIND if owner_ids is None else _BEHIND.where(_E.owner_id.in_(owner_ids))
    if kinds:
        query = query.where(_E.kind.in_(kinds))
    if account_id is not None:
        query = query.where(_E.account_id == account_id)
    return [_entry(row) for row in await connection.execute(query, {"after": after, "limit": limit})]


def digest_of(entry: Entry) -> str:
    """Return what tells a change from another one at the same position, in a database that was restored."""
    told = f"{entry.position}|{entry.account_id}|{entry.kind}|{entry.owner_id}|{int(entry.at.timestamp() * 1000)}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


async def require_position(connection: AsyncConnection, after: str) -> int:
    """Return the newest position, after making sure that a reader can go on from where it stands. Raises Gone.

    A reader that has seen more than there is, or another change where it stands, has read a database that was since
    replaced by an older copy: going on would miss what was done again.
    """
    position = int(after.partition(".")[0])
    row = (await connection.execute(_ENTRIES.where(_E.position == position))).one_or_none()
    head, floor = await last_position(connection), await counter_value(connection, FLOOR)
    _check_position(after, head=head, floor=floor, stands_at=_entry(row) if row is not None else None)
    return head


def _check_position(after: str, *, head: int, floor: int, stands_at: Entry | None) -> None:
    number, _, digest = after.partition(".")
    if int(number) > head:
        raise Gone(f"the feed ends at {head}: {_RESTORED}")
    if int(number) < floor:
        raise Gone(f"changes up to there are no longer kept (BROKER_SYNC__CHANGE_RETENTION_DAYS); {_REMEDY}")
    if digest and stands_at is not None and digest_of(stands_at) != digest:
        raise Gone(f"another change stands there now: {_RESTORED}")


async def forget_changes(connection: AsyncConnection, *, before: datetime, up_to: int, limit: int) -> int:
    """Remove changes older than a moment, none behind `up_to`; return how many. The newest stays: it ends the feed."""
    newest = sa.select(sa.func.max(_E.position)).scalar_subquery()
    query = (
        sa.select(_E.position)
        .where(_E.position <= up_to, _E.position < newest, _E.at < before)
        .order_by(_E.position)
        .limit(limit)
    )
    old = (await connection.execute(query)).scalars().all()
    if old:
        await connection.execute(sa.delete(account_events).where(_E.position.in_(old)))
        await raise_counter(connection, FLOOR, old[-1])
    return len(old)


async def read_entries(connection: AsyncConnection, positions: Collection[int]) -> list[Entry]:
    """Return the changes at these positions, in order."""
    return [_entry(row) for row in await connection.execute(_ENTRIES.where(_E.position.in_(positions)))]


async def _read_page(
    database: Database, query: EventsQuery, owner_ids: Collection[str] | None
) -> tuple[list[Entry], int]:
    """Return the next changes and the newest position. Raises Gone where the reader cannot go on from its position."""
    if owner_ids is None and not query.kind:
        rows = await database.fetch(_PAGE, {"after": query.position, "limit": query.limit + 1})
        if rows:
            # The change that the reader stands at comes along, and so do the feed's two ends: one statement in all.
            head, floor = int(rows[0][-2]), int(rows[0][-1] or 0)
            entries = [_entry(row[:-2]) for row in rows]
            stands_at = entries.pop(0) if entries[0].position == query.position else None
            _check_position(query.after, head=head, floor=floor, stands_at=stands_at)
            return entries[: query.limit], head
    async with database.reading() as connection:
        head = await require_position(connection, query.after)
        entries = await read_feed(
            connection, after=query.position, limit=query.limit, owner_ids=owner_ids, kinds=query.kind
        )
    return entries, head


async def read_events(runtime: Runtime, caller: Service, query: EventsQuery) -> tuple[list[Entry], int]:
    """Return changes for a service, and the newest position; wait for a first change as long as the query says.

    No connection to the database is held meanwhile.
    Ends early where the process is stopping: a wait must not hold its end up, and the reader may ask elsewhere. Where
    too many wait already, in all or with the same credential, it does not wait: each holds a connection.
    Raises Gone where the reader cannot go on from its position, InsufficientScope for an owner of somebody else.
    """
    for owner_id in query.owner_id:
        caller.require(Scope.EVENTS_READ, owner_id)
    with _waiting(runtime, caller) as may_wait:
        deadline = runtime.clock.monotonic() + (query.wait if may_wait else 0)
        while True:
            entries, head = await _read_page(runtime.database, query, query.owner_id or caller.owner_ids)
            left = deadline - runtime.clock.monotonic()
            if entries or left <= 0 or runtime.stopping.is_set():
                return entries, head
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


async def read_account_events(
    runtime: Runtime, caller: Service, account_id: str, query: AccountEventsQuery
) -> tuple[list[Entry], int]:
    """Return changes of one account, of its present and former owners as far as the caller may see, and the head.

    Raises NotFound alike for an account without changes and for one that was never of an owner of the caller's.
    """
    async with runtime.database.reading() as connection:
        if not await read_feed(connection, after=0, limit=1, owner_ids=caller.owner_ids, account_id=account_id):
            raise NotFound
        head = await require_position(connection, query.after)
        entries = await read_feed(
            connection,
            after=int(query.after.partition(".")[0]),
            limit=query.limit,
            owner_ids=caller.owner_ids,
            account_id=account_id,
        )
    return entries, head


async def last_position(connection: AsyncConnection) -> int:
    """Return the position of the newest change, 0 where there is none."""
    return int((await connection.execute(sa.select(sa.func.coalesce(sa.func.max(_E.position), 0)))).scalar_one())


async def read_feed_head(connection: AsyncConnection) -> str:
    """Return the newest position as a cursor."""
    query = sa.select(*_FIELDS).where(_E.position.is_not(None)).order_by(_E.position.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return "0"
    entry = Entry(*row)
    return f"{entry.position}.{digest_of(entry)}"


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
