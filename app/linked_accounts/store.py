"""The rows of linked accounts and of what happened to them, and the verbs that are no more than one query.

What serves an end user takes an owner id; the others say so in their names.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from app.db.counters import advance, advancing
from app.db.database import Database, seal
from app.db.slices import count_rows
from app.db.statements import Statement
from app.db.tables import Json, UtcDateTime, row_version
from app.errors import NotFound
from app.identity.caller import EndUser, Service
from app.linked_accounts.changes import Change, Source
from app.linked_accounts.queries import AccountsQuery, AllAccountsQuery
from app.linked_accounts.tables import account_events, linked_accounts
from app.runtime import Runtime
from app.stackone.models import REAUTH_STATUSES, USABLE_STATUSES

_READS: Final = "account_reads"
_FEED: Final = "account_events"

_C = linked_accounts.c
_E = account_events.c
_ENTRY: Final = ("account_id", "owner_id", "provider", "kind", "source", "actor", "changes")
# An account is shown once StackOne itself has vouched for it and until it is gone. One that belongs to nobody here is
# never shown.
VISIBLE = sa.and_(_C.verified_at.is_not(None), _C.deleted_at.is_(None), _C.owner_id.is_not(None))


@dataclass(frozen=True)
class LinkedAccount:
    """A linked account as the store has it."""

    account_id: str
    owner_id: str | None
    owner_name: str | None
    username: str | None
    provider: str | None
    status: str | None
    status_reasons: Sequence[dict[str, Any]] | None
    label: str | None
    type: str | None
    created_at: datetime | None
    updated_at: datetime | None
    needs_reauth_since: datetime | None
    recovered_at: datetime | None
    remind_at: datetime | None
    verified_at: datetime | None
    read_ticket: int | None
    deleted_at: datetime | None
    gone_since: datetime | None
    deletion_witness: str | None
    erasure_id: str | None
    refresh_due_at: datetime | None
    refresh_marks: int
    refresh_attempts: int
    claimed_until: datetime | None
    disconnect_requested_at: datetime | None
    disconnect_requested_by: str | None
    confirmed_at: datetime | None
    confirmed_by: str | None

    @property
    def usable(self) -> bool:
        """Whether calls to the provider can work."""
        return self.status in USABLE_STATUSES and not self.leaving

    @property
    def leaving(self) -> bool:
        """Whether its owner gave it up and StackOne has yet to confirm that it is gone."""
        return self.disconnect_requested_at is not None

    @property
    def needs_reauth(self) -> bool:
        """Whether the account works again only after somebody signs in to the provider anew."""
        return self.status in REAUTH_STATUSES

    @property
    def is_visible(self) -> bool:
        """Whether callers are shown it: StackOne itself has vouched for it, it is not gone, and it is somebody's."""
        return self.verified_at is not None and self.deleted_at is None and self.owner_id is not None


@dataclass(frozen=True)
class Seen:
    """A row as it was read without a lock, and PostgreSQL's mark of its version; what is not stored is a blank row."""

    row: LinkedAccount
    version: str | None = None


def blank(account_id: str) -> LinkedAccount:
    """Return the row of an account that nothing is known of."""
    fields: dict[str, Any] = dict.fromkeys(LinkedAccount.__dataclass_fields__)
    return LinkedAccount(**{**fields, "account_id": account_id, "refresh_marks": 0, "refresh_attempts": 0})


_FIELDS = tuple(_C[name] for name in LinkedAccount.__dataclass_fields__)


def from_row(row: sa.Row[*tuple[Any, ...]]) -> LinkedAccount:
    """Build a LinkedAccount from a row of `columns()`."""
    return LinkedAccount(*row)


def columns() -> Sequence[sa.ColumnElement[Any]]:
    """Return the columns that `from_row` takes, in its order."""
    return _FIELDS


async def take_read_ticket(connection: AsyncConnection) -> int:
    """Number a read of StackOne before it starts, so that its answer can be ordered among others.

    Numbers come from the database: clocks of replicas differ and jump.
    """
    return await advance(connection, _READS)


def read_ticket_where(condition: sa.ColumnElement[bool]) -> ReturningInsert[Any]:
    """Number a read as `take_read_ticket` does, as part of a larger statement of PostgreSQL."""
    return advancing(_READS, sa.literal_column("1", sa.BigInteger), where=condition)


def _ticket_and_account() -> Statement:
    ticket = read_ticket_where(sa.true()).cte("ticket")
    accounts = ticket.outerjoin(linked_accounts, _C.account_id == sa.bindparam("account_id"))
    version = row_version(linked_accounts).label("version")
    return Statement(sa.select(ticket.c.value, version, *_FIELDS).select_from(accounts))


_TICKET_AND_ACCOUNT: Final = _ticket_and_account()


async def take_ticket_for(database: Database, account_id: str) -> tuple[int, Seen]:
    """Number a read of StackOne before it starts, and return what the store has of the account, whoever owns it."""
    if database.dialect == "sqlite":
        async with database.transaction() as connection:
            ticket = await take_read_ticket(connection)
            row = await find_of_any_owner(connection, account_id)
        return ticket, Seen(row or blank(account_id))
    ((ticket, version, *fields),) = await database.fetch(_TICKET_AND_ACCOUNT, {"account_id": account_id})
    return ticket, Seen(LinkedAccount(*fields) if version is not None else blank(account_id), version)


_OF_OWNER = sa.and_(_C.owner_id == sa.bindparam("owner_id"), VISIBLE)
_IS_ACCOUNT = _C.account_id == sa.bindparam("account_id")
_ONE: Final = Statement(sa.select(*_FIELDS).where(_IS_ACCOUNT, VISIBLE))
_ONE_OF_OWNER: Final = Statement(sa.select(*_FIELDS).where(_OF_OWNER, _IS_ACCOUNT))
_SOME_OF_OWNER = (
    sa.select(*_FIELDS)
    .where(_OF_OWNER, _C.account_id > sa.bindparam("after"))
    .order_by(_C.account_id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_PAGE_OF_OWNER: Final = Statement(_SOME_OF_OWNER)
SOME_OF_PROVIDER: Final = _SOME_OF_OWNER.where(sa.func.lower(_C.provider) == sa.bindparam("provider"))
"""The query of `list_of_provider_for_owner`, for a larger statement."""
_PAGE_OF_PROVIDER: Final = Statement(SOME_OF_PROVIDER)


async def list_for_owner(
    connection: AsyncConnection, owner_id: str, query: AccountsQuery | None = None, *, limit: int
) -> list[LinkedAccount]:
    """Return up to `limit` accounts of one owner, in the order of their ids, where the query asks them to begin."""
    found = _SOME_OF_OWNER
    if query is not None and query.provider:
        found = found.where(sa.func.lower(_C.provider).in_([provider.lower() for provider in query.provider]))
    if query is not None and query.status:
        found = found.where(_C.status.in_(query.status))
    after = query.cursor if query is not None else None
    parameters = {"owner_id": owner_id, "after": after or "", "limit": limit}
    return [from_row(row) for row in await connection.execute(found, parameters)]


async def list_of_provider_for_owner(
    database: Database, owner_id: str, provider: str, *, limit: int
) -> list[LinkedAccount]:
    """Return up to `limit` accounts that one owner has of a provider."""
    found = await database.fetch(_PAGE_OF_PROVIDER, of_provider(owner_id, provider, limit=limit))
    return [LinkedAccount(*row) for row in found]


def of_provider(owner_id: str, provider: str, *, limit: int) -> dict[str, Any]:
    """Return the parameters of `SOME_OF_PROVIDER`."""
    return {"owner_id": owner_id, "provider": provider.lower(), "after": "", "limit": limit}


async def get_for_owner(database: Database, owner_id: str, account_id: str) -> LinkedAccount | None:
    """Return one account if it is this owner's."""
    rows = await database.fetch(_ONE_OF_OWNER, {"owner_id": owner_id, "account_id": account_id})
    return LinkedAccount(*rows[0]) if rows else None


async def get_for_any_owner(database: Database, account_id: str) -> LinkedAccount | None:
    """Return one account, whoever owns it. For services only."""
    rows = await database.fetch(_ONE, {"account_id": account_id})
    return LinkedAccount(*rows[0]) if rows else None


async def count_due_of_all_owners(connection: AsyncConnection) -> int:
    """Return how many accounts wait to be read again."""
    query = sa.select(sa.func.count()).where(_C.refresh_due_at.is_not(None), _C.deleted_at.is_(None))
    return int((await connection.execute(query)).scalar_one())


KNOWN: Final = sa.and_(_C.verified_at.is_not(None), _C.deleted_at.is_(None))
"""StackOne has vouched for the account and not taken it back."""


async def count_known_of_all_owners(connection: AsyncConnection) -> int:
    """Return how many accounts are known; it reads the whole table, slice after slice."""
    [known] = await count_rows(connection, linked_accounts, KNOWN)
    return known


async def count_some_known(connection: AsyncConnection, *, at_most: int) -> int:
    """Return how many accounts are known, or `at_most` if there are more: it looks no further."""
    some = sa.select(sa.literal(1)).select_from(linked_accounts).where(KNOWN).limit(at_most).subquery()
    return int((await connection.execute(sa.select(sa.func.count()).select_from(some))).scalar_one())


async def count_missing_of_all_owners(connection: AsyncConnection, *, since: datetime) -> int:
    """Return of how many accounts only reads say that they are gone: those still kept, and those removed of late.

    Accounts that their owners gave up are no surprise, and signed events cannot be made by whatever answers 404.
    """
    query = sa.select(sa.func.count()).where(
        _C.gone_since.is_not(None),
        _C.disconnect_requested_at.is_(None),
        sa.or_(_C.deleted_at.is_(None), _C.gone_since > since),
    )
    return int((await connection.execute(query)).scalar_one())


async def count_unowned(connection: AsyncConnection) -> int:
    """Return how many accounts StackOne has under an owner id that no verified caller can have."""
    query = sa.select(sa.func.count()).where(
        _C.owner_id.is_(None), _C.verified_at.is_not(None), _C.deleted_at.is_(None)
    )
    return int((await connection.execute(query)).scalar_one())


async def count_needing_reauth(connection: AsyncConnection) -> int:
    """Return how many accounts of all owners wait for their users to sign in again."""
    query = sa.select(sa.func.count()).where(VISIBLE, _C.needs_reauth_since.is_not(None))
    return int((await connection.execute(query)).scalar_one())


async def list_of_any_owner(
    connection: AsyncConnection,
    *,
    owner_id: str | None,
    provider: str | None,
    needs_reauth: bool,
    after: str | None,
    limit: int,
) -> list[LinkedAccount]:
    """Return visible accounts in the order of their ids, or the longest broken first. For the command line only."""
    wanted = AllAccountsQuery(
        owner_id=[owner_id] if owner_id is not None else [],
        provider=[provider] if provider is not None else [],
        needs_reauth=needs_reauth or None,
    )
    query = _selected(wanted, None).limit(limit)
    if after is not None:
        query = query.where(_C.account_id > after)
    return [from_row(row) for row in await connection.execute(query)]


async def find_of_any_owner(connection: AsyncConnection, account_id: str) -> LinkedAccount | None:
    """Return whatever the store has of an account, tombstones included; callers of HTTP are never shown it."""
    row = (await connection.execute(sa.select(*_FIELDS).where(_C.account_id == account_id))).one_or_none()
    return from_row(row) if row is not None else None


async def lock_in_order(connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> None:
    """Lock rows before a statement that changes several: an UPDATE goes by no order, and could wait in a circle."""
    query = sa.select(_C.account_id).where(condition).order_by(_C.account_id)
    await connection.execute(query.with_for_update(key_share=True))


async def append_changes(
    connection: AsyncConnection, changes: Sequence[Change], *, source: Source, actor: str, now: datetime
) -> None:
    """Append changes to the feed, in order; the transaction may do nothing after it.

    Positions come from a counter whose row stays locked until commit, so a position becomes visible only after every
    lower one: a reader that remembers the highest position it saw misses nothing. It also is
    what every writer waits for: hence the last lock that a transaction takes, which sealing it makes sure of, even
    where there happens to be no change.
    """
    if changes:
        await _append(connection, changes, source, actor, now)
    seal(connection, "the change feed has been written")


async def _append(
    connection: AsyncConnection, changes: Sequence[Change], source: Source, actor: str, now: datetime
) -> None:
    last = await advance(connection, _FEED, by=len(changes))
    first = last - len(changes) + 1
    await connection.execute(
        sa.insert(account_events),
        [
            {"position": first + offset, "at": now, **as_entry(change, source=source, actor=actor)}
            for offset, change in enumerate(changes)
        ],
    )


def as_entry(change: Change, *, source: Source, actor: str) -> dict[str, Any]:
    """Return a change as an entry of the feed, without its position and time."""
    return {
        "account_id": change.account_id,
        "owner_id": change.owner_id,
        "provider": change.provider,
        "kind": change.kind.value,
        "source": (change.cause[0] if change.cause else source).value,
        "actor": change.cause[1] if change.cause else actor,
        "changes": dict(change.changes) if change.changes is not None else None,
    }


def appending_to_feed(written: sa.Select[Any]) -> sa.Select[Any]:
    """Append `entries` to the feed, by their numbers from 1, where a statement of PostgreSQL has written its rows.

    As in `append_changes` the counter is the last lock that is taken: its row is asked for only with the rows at hand.
    """
    entries = sa.bindparam("entries", type_=Json)
    count = sa.func.jsonb_array_length(entries)
    has_written = written.cte("has_written")
    last = advancing(_FEED, count, where=sa.and_(count > 0, sa.exists(sa.select(has_written)))).cte("last_position")
    fields = (sa.column("number", sa.Integer), *(sa.column(name, _E[name].type) for name in _ENTRY))
    entry = sa.func.jsonb_to_recordset(entries).table_valued(*fields, name="entry").render_derived(with_types=True)
    appended = sa.insert(account_events).from_select(
        ["position", "at", *_ENTRY],
        sa.select(
            last.c.value - count + entry.c.number,
            sa.bindparam("at", type_=UtcDateTime),
            *(entry.c[name] for name in _ENTRY),
        ).select_from(last.join(entry, sa.true())),
    )
    return sa.select(has_written).add_cte(appended.cte("appended"))


@dataclass(frozen=True)
class Page:
    """A page of accounts, and whether there are more behind it."""

    accounts: Sequence[LinkedAccount]
    has_more: bool


async def providers_of_owner(connection: AsyncConnection, owner_id: str) -> set[str]:
    """Return the providers of which an owner has an account that is not about to go."""
    query = (
        sa.select(_C.provider)
        .distinct()
        .where(
            _C.owner_id == owner_id,
            _C.deleted_at.is_(None),
            _C.verified_at.is_not(None),
            _C.disconnect_requested_at.is_(None),
            _C.provider.is_not(None),
        )
    )
    return set((await connection.execute(query)).scalars())


def _selected(query: AllAccountsQuery, owner_ids: Collection[str] | None) -> sa.Select[Any]:
    """Return the query of a list over owners, in its order: by id, or the longest broken first."""
    found = sa.select(*_FIELDS).where(VISIBLE)
    if query.status and REAUTH_STATUSES.issuperset(query.status):
        # True of each of them anyway, and there is an index of these.
        found = found.where(_C.needs_reauth_since.is_not(None))
    for column, values in ((_C.owner_id, query.owner_id), (_C.account_id, query.account_id), (_C.status, query.status)):
        if values:
            found = found.where(column.in_(values))
    if owner_ids is not None:
        found = found.where(_C.owner_id.in_(owner_ids))
    if query.provider:
        # Both spellings, and not lower(): a list over all owners needs the index.
        spellings = {spelled for provider in query.provider for spelled in (provider, provider.lower())}
        found = found.where(_C.provider.in_(spellings))
    if query.needs_reauth is not None:
        is_broken = sa.and_(_C.needs_reauth_since.is_not(None), _C.disconnect_requested_at.is_(None))
        found = found.where(is_broken if query.needs_reauth else sa.not_(is_broken))
    if query.usable is not None:
        works = sa.and_(_C.status.in_(USABLE_STATUSES), _C.disconnect_requested_at.is_(None))
        found = found.where(works if query.usable else sa.not_(works))
    if query.updated_since is not None:
        found = found.where(_C.updated_at >= query.updated_since)
    order = (_C.needs_reauth_since, _C.account_id) if query.needs_reauth else (_C.account_id,)
    return found.order_by(*order)


async def list_of_owners(
    connection: AsyncConnection,
    query: AllAccountsQuery,
    owner_ids: Collection[str] | None,
    *,
    after: tuple[datetime | None, str] | None,
    limit: int,
) -> list[LinkedAccount]:
    """Return accounts of these owners, or of all, behind a place in the list. For services only."""
    found = _selected(query, owner_ids).limit(limit)
    if after is not None:
        since, account_id = after
        if since is not None:
            later = sa.and_(_C.needs_reauth_since == since, _C.account_id > account_id)
            found = found.where(sa.or_(_C.needs_reauth_since > since, later))
        else:
            found = found.where(_C.account_id > account_id)
    return [from_row(row) for row in await connection.execute(found)]


async def list_accounts(runtime: Runtime, owner_id: str, query: AccountsQuery) -> Page:
    """Return a page of an owner's accounts."""
    if query.provider or query.status:
        async with runtime.database.reading() as connection:
            accounts = await list_for_owner(connection, owner_id, query, limit=query.limit + 1)
    else:
        parameters = {"owner_id": owner_id, "after": query.cursor or "", "limit": query.limit + 1}
        accounts = [LinkedAccount(*row) for row in await runtime.database.fetch(_PAGE_OF_OWNER, parameters)]
    return Page(accounts[: query.limit], len(accounts) > query.limit)


async def get_own_account(runtime: Runtime, user: EndUser, account_id: str) -> LinkedAccount:
    """Return an account of the user's owner. Raises NotFound alike for an unknown one and for somebody else's."""
    account = await get_for_owner(runtime.database, user.owner_id, account_id)
    if account is None:
        raise NotFound
    return account


async def get_account(runtime: Runtime, caller: Service, account_id: str) -> LinkedAccount:
    """Return an account of any owner that the service may act for. Raises NotFound."""
    account = await get_for_any_owner(runtime.database, account_id)
    # A key that is limited to some owners learns nothing about others' accounts, not even that they exist.
    if account is None or (caller.owner_ids is not None and account.owner_id not in caller.owner_ids):
        raise NotFound
    return account
