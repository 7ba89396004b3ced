"""Connections beyond the size that is kept: opened once for a busy moment, and closed when it is over."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from app.db.database import Database
from app.db.pool import BusyPool
from app.db.statements import Statement
from tests.support.databases import PostgresqlDatabases, engine_of

pytestmark = pytest.mark.anyio

KEPT, MOST = 2, 6
ONE = Statement(sa.select(sa.literal(1)))
PID = Statement(sa.select(sa.func.pg_backend_pid()))
LONG = Statement(sa.select(sa.literal(1)).select_from(sa.func.pg_sleep(30)))
SLOW = Statement(sa.select(sa.literal(1)).select_from(sa.func.pg_sleep(0.05)))


@pytest.fixture
async def database(postgresql_databases: PostgresqlDatabases) -> AsyncIterator[Database]:
    url = postgresql_databases.create()
    opened = Database(engine_of(url, pool_size=KEPT, pool_overflow=MOST - KEPT))
    yield opened
    await opened.close()
    postgresql_databases.give_back(url)


def pool_of(database: Database) -> BusyPool:
    pool = database.engine.sync_engine.pool
    assert isinstance(pool, BusyPool)
    return pool


async def crowd(database: Database, statement: Statement = SLOW, size: int = MOST) -> None:
    await asyncio.gather(*(database.fetch(statement, {}) for _ in range(size)))


async def test_a_crowd_opens_each_connection_once(database: Database) -> None:
    opened = 0

    def count(*_connection: object) -> None:
        nonlocal opened
        opened += 1

    event.listen(database.engine.sync_engine, "connect", count)
    for _ in range(5):
        await crowd(database)
        async with database.transaction() as connection:
            await connection.execute(sa.select(1))
    assert opened == MOST
    assert pool_of(database).checkedin() == MOST


async def test_no_more_than_the_kept_ones_outlive_the_crowd(database: Database) -> None:
    await crowd(database)
    pool_of(database).linger_seconds = 0
    for _ in range(MOST):
        await database.fetch(ONE, {})
    assert pool_of(database).checkedin() == KEPT
    # And they do for the next crowd what those before them did.
    pool_of(database).linger_seconds = 30
    await crowd(database)
    assert pool_of(database).checkedin() == MOST


async def test_the_limit_holds_and_whoever_waits_gets_one(database: Database) -> None:
    busiest = 0

    def look(*_connection: object) -> None:
        nonlocal busiest
        busiest = max(busiest, pool_of(database).checkedout())

    event.listen(database.engine.sync_engine, "checkin", look)
    await crowd(database, size=5 * MOST)
    assert busiest == MOST
    assert pool_of(database).checkedin() == MOST


async def test_what_the_pool_shows_next_is_what_it_hands_out(database: Database) -> None:
    pool = pool_of(database)
    shown: list[object] = []

    def note(entry: object) -> bool:
        shown.append(entry)
        return True

    assert pool.borrow(note) is None
    await crowd(database)
    for size in (1, 3, MOST, 2 * MOST, 1):
        await crowd(database, size=size)
        taken = []
        while (entry := pool.borrow(note)) is not None:
            taken.append(entry)
        assert taken == shown
        assert (len(set(taken)), pool.checkedout()) == (MOST, MOST)
        for entry in reversed(taken):
            pool.give_back(entry)
        shown.clear()


async def test_a_statement_that_was_cancelled_costs_no_other_connection(database: Database) -> None:
    opened = 0

    def count(*_connection: object) -> None:
        nonlocal opened
        opened += 1

    await crowd(database)
    event.listen(database.engine.sync_engine, "connect", count)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(database.fetch(LONG, {}), timeout=0.2)
        await crowd(database)
    assert (opened, pool_of(database).checkedin()) == (2, MOST)


async def test_a_statement_that_is_refused_leaves_its_connection_open(database: Database) -> None:
    before = await database.fetch(PID, {})
    with pytest.raises(Exception, match="division by zero"):
        await database.fetch(Statement(sa.select(sa.literal_column("1 / 0"))), {})
    assert await database.fetch(PID, {}) == before


async def test_a_server_that_closed_them_all_is_connected_to_anew(database: Database) -> None:
    await crowd(database)
    # Known to nobody here but by the sockets, which the loop looks at when it waits.
    others = sa.select(sa.func.pg_terminate_backend(sa.column("pid"))).select_from(sa.table("pg_stat_activity"))
    async with database.transaction() as connection:
        await connection.execute(others.where(sa.text("datname = current_database() AND pid <> pg_backend_pid()")))
    await asyncio.sleep(0.1)
    await crowd(database, ONE)
    assert pool_of(database).checkedout() == 0


async def test_whoever_waits_is_not_overtaken_by_those_who_come_later(database: Database) -> None:
    done = [0] * 5 * MOST

    async def ask_again_and_again(number: int) -> None:
        while max(done) < 40:
            if number % 2:
                await database.fetch(ONE, {})
            else:
                async with database.reading() as connection:
                    await connection.execute(sa.select(1))
            done[number] += 1

    await asyncio.gather(*(ask_again_and_again(number) for number in range(len(done))))
    assert min(done) >= 30, done
