"""The rows of linked accounts and of what happened to them, and the verbs that are no more than one query.

What serves an end user takes an owner id; the others say so in their names.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.counters import advance
from app.db.database import seal
from app.errors import NotFound
from app.identity.caller import EndUser, Service
from app.linked_accounts.changes import Change, Source
from app.linked_accounts.queries import AccountsQuery
from app.linked_accounts.tables import account_events, linked_accounts
from app.runtime import Runtime
from app.stackone.models import REAUTH_STATUSES, USABLE_STATUSES

_READS: Final = "account_reads"
_FEED: Final = "account_events"

_C = linked_accounts.c
# An account is shown once StackOne itself has vouched for it and until it is gone. One that belongs to nobody here is
# never shown.
_VISIBLE = sa.and_(_C.verified_at.is_not(None), _C.deleted_at.is_(None), _C.owner_id.is_not(None))


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


async def list_for_owner(
    connection: AsyncConnection, owner_id: str, query: AccountsQuery | None = None, *, limit: int
) -> list[LinkedAccount]:
    """Return up to `limit` accounts of one owner, in the order of their ids, where the query asks them to begin."""
    found = sa.select(*_FIELDS).where(_C.owner_id == owner_id, _VISIBLE).order_by(_C.account_id).limit(limit)
    if query is not None:
        if query.provider:
            found = found.where(_C.provider.in_(query.provider))
        if query.status:
            found = found.where(_C.status.in_(query.status))
        if query.cursor is not None:
            found = found.where(_C.account_id > query.cursor)
    return [from_row(row) for row in await connection.execute(found)]


async def get_for_owner(connection: AsyncConnection, owner_id: str, account_id: str) -> LinkedAccount | None:
    """Return one account if it is this owner's."""
    query = sa.select(*_FIELDS).where(_C.owner_id == owner_id, _C.account_id == account_id, _VISIBLE)
    row = (await connection.execute(query)).one_or_none()
    return from_row(row) if row is not None else None


async def get_for_any_owner(connection: AsyncConnection, account_id: str) -> LinkedAccount | None:
    """Return one account, whoever owns it. For services only."""
    query = sa.select(*_FIELDS).where(_C.account_id == account_id, _VISIBLE)
    row = (await connection.execute(query)).one_or_none()
    return from_row(row) if row is not None else None


async def get_many_of_any_owner(connection: AsyncConnection, account_ids: Collection[str]) -> dict[str, LinkedAccount]:
    """Return the visible ones of these accounts, whoever owns them. For services only."""
    query = sa.select(*_FIELDS).where(_C.account_id.in_(account_ids), _VISIBLE)
    return {row.account_id: from_row(row) for row in await connection.execute(query)}


async def count_due_of_all_owners(connection: AsyncConnection) -> int:
    """Return how many accounts wait to be read again."""
    query = sa.select(sa.func.count()).where(_C.refresh_due_at.is_not(None), _C.deleted_at.is_(None))
    return int((await connection.execute(query)).scalar_one())


async def count_known_of_all_owners(connection: AsyncConnection) -> int:
    """Return how many accounts StackOne has vouched for and not taken back."""
    query = sa.select(sa.func.count()).where(_C.verified_at.is_not(None), _C.deleted_at.is_(None))
    return int((await connection.execute(query)).scalar_one())


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


async def list_of_any_owner(
    connection: AsyncConnection, *, owner_id: str | None, provider: str | None, after: str | None, limit: int
) -> list[LinkedAccount]:
    """Return visible accounts in the order of their ids. For the command line only."""
    query = sa.select(*_FIELDS).where(_VISIBLE).order_by(_C.account_id).limit(limit)
    for column, value in ((_C.owner_id, owner_id), (_C.provider, provider)):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(_C.account_id > after)
    return [from_row(row) for row in await connection.execute(query)]


async def find_of_any_owner(connection: AsyncConnection, account_id: str) -> LinkedAccount | None:
    """Return whatever the store has of an account, tombstones included. For the command line only."""
    row = (await connection.execute(sa.select(*_FIELDS).where(_C.account_id == account_id))).one_or_none()
    return from_row(row) if row is not None else None


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
            {
                "position": first + offset,
                "account_id": change.account_id,
                "owner_id": change.owner_id,
                "provider": change.provider,
                "kind": change.kind.value,
                "source": (change.cause[0] if change.cause else source).value,
                "actor": change.cause[1] if change.cause else actor,
                "at": now,
                "changes": dict(change.changes) if change.changes is not None else None,
            }
            for offset, change in enumerate(changes)
        ],
    )


@dataclass(frozen=True)
class Page:
    """A page of accounts, and whether there are more behind it."""

    accounts: Sequence[LinkedAccount]
    has_more: bool


async def list_accounts(runtime: Runtime, owner_id: str, query: AccountsQuery) -> Page:
    """Return a page of an owner's accounts."""
    async with runtime.database.reading() as connection:
        accounts = await list_for_owner(connection, owner_id, query, limit=query.limit + 1)
    return Page(accounts[: query.limit], len(accounts) > query.limit)


async def get_own_account(runtime: Runtime, user: EndUser, account_id: str) -> LinkedAccount:
    """Return an account of the user's owner. Raises NotFound alike for an unknown one and for somebody else's."""
    async with runtime.database.reading() as connection:
        account = await get_for_owner(connection, user.owner_id, account_id)
    if account is None:
        raise NotFound
    return account


async def get_account(runtime: Runtime, caller: Service, account_id: str) -> LinkedAccount:
    """Return an account of any owner that the service may act for. Raises NotFound."""
    async with runtime.database.reading() as connection:
        account = await get_for_any_owner(connection, account_id)
    # A key that is limited to some owners learns nothing about others' accounts, not even that they exist.
    if account is None or (caller.owner_ids is not None and account.owner_id not in caller.owner_ids):
        raise NotFound
    return account
