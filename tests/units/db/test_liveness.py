"""When a pooled connection is used again, asked first, or given up."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from app.db.database import Database
from tests.support.databases import PostgresqlDatabases, engine_of

pytestmark = pytest.mark.anyio

PID = sa.text("SELECT pg_backend_pid()")


@pytest.fixture
async def database(postgresql_databases: PostgresqlDatabases) -> AsyncIterator[Database]:
    """Open a PostgreSQL with one connection."""
    url = postgresql_databases.create()
    opened = Database(engine_of(url, pool_size=1, pool_overflow=0))
    yield opened
    await opened.close()
    postgresql_databases.give_back(url)


async def pid(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.execute(PID)).scalar_one())


async def test_a_connection_that_answers_is_kept_however_long_it_was_idle(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await pid(database)
    assert await pid(database) == first
    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert await pid(database) == first


async def test_one_that_the_server_has_closed_is_replaced_before_it_is_used(
    database: Database, postgresql_databases: PostgresqlDatabases
) -> None:
    first = await pid(database)
    url = postgresql_databases.create()
    other = Database(engine_of(url))
    async with other.reading() as connection:
        await connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 1000)"), {"pid": first})
    await other.close()
    postgresql_databases.give_back(url)
    # The loop has to see that the socket was closed.
    await asyncio.sleep(0.05)
    assert await pid(database) != first


async def drop_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(sa.text("DROP TABLE kept"))
        raise ZeroDivisionError


async def test_a_single_statement_is_committed_at_once_and_a_transaction_is_not(database: Database) -> None:
    kept = sa.text("CREATE TABLE kept (id int)")
    async with database.autocommit() as connection:
        await connection.execute(kept)
    with pytest.raises(ZeroDivisionError):
        await drop_and_fail(database)
    async with database.autocommit() as connection:
        await connection.execute(sa.text("DROP TABLE kept"))
