"""Visible transactions: what ends one, and what may not follow in it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.counters import advance
from app.db.database import Database
from app.db.engine import open_engine
from app.linked_accounts.changes import Change, Kind, Source
from app.linked_accounts.store import append_changes, find_of_any_owner
from app.linked_accounts.tables import account_events
from app.settings import DatabaseSettings

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINKED = Change(Kind.LINKED, "acc1", "acme", "workday")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Open a fresh database."""
    opened = Database(open_engine(DatabaseSettings(url=database_url)))
    yield opened
    await opened.close()


async def append(connection: AsyncConnection) -> None:
    await append_changes(connection, [LINKED], source=Source.SWEEP, actor="test", now=NOW)


async def append_nothing(connection: AsyncConnection) -> None:
    await append_changes(connection, [], source=Source.SWEEP, actor="test", now=NOW)


async def read(connection: AsyncConnection) -> None:
    await find_of_any_owner(connection, "acc1")


async def write(connection: AsyncConnection) -> None:
    await advance(connection, "other")


async def do(database: Database, *steps: Callable[[AsyncConnection], Awaitable[None]]) -> None:
    async with database.transaction() as connection:
        for step in steps:
            await step(connection)


async def count_events(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(account_events))).scalar_one())


@pytest.mark.parametrize("first", [append, append_nothing])
@pytest.mark.parametrize("then", [write, read, append])
async def test_nothing_may_follow_what_was_appended_to_the_feed(
    database: Database,
    first: Callable[[AsyncConnection], Awaitable[None]],
    then: Callable[[AsyncConnection], Awaitable[None]],
) -> None:
    with pytest.raises(RuntimeError, match="the change feed has been written"):
        await do(database, first, then)
    assert await count_events(database) == 0


async def test_the_next_transaction_on_the_same_connection_is_free(database: Database) -> None:
    for number in range(3):
        await do(database, write, append)
        assert await count_events(database) == number + 1
