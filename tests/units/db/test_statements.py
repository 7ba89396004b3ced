"""Statements that the driver runs itself: the same values as by SQLAlchemy, and good manners when something breaks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.database import Database
from app.db.failures import Cause, DatabaseUnavailable
from app.db.statements import Statement
from app.db.tables import EnumText, Json, UtcDateTime
from tests.support.databases import PostgresqlDatabases, engine_of

pytestmark = pytest.mark.anyio


class Fruit(Enum):
    """An Enum in a column."""

    APPLE = "apple"


NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
VALUES: dict[str, tuple[Any, Any]] = {
    "time": (UtcDateTime, NOON),
    "elsewhere": (UtcDateTime, NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    "no_time": (UtcDateTime, None),
    "enum": (EnumText(Fruit, 16), Fruit.APPLE),
    "no_enum": (EnumText(Fruit, 16), None),
    "object": (Json, {"a": [1, None, "ü'\"\\"], "b": {"c": True}}),
    "list": (Json, []),
    "no_object": (Json, None),
    "text": (sa.Text, "ü'\"\\%s $1 :name"),
    "no_text": (sa.Text, None),
    "yes": (sa.Boolean, True),
    "large": (sa.BigInteger, 2**62),
    "bytes": (sa.LargeBinary, b"\x00\xff"),
}
ECHO = Statement(sa.select(*(sa.bindparam(name, type_=type_).label(name) for name, (type_, _) in VALUES.items())))
PARAMETERS = {name: value for name, (_, value) in VALUES.items()}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Open a database with one connection."""
    changes = {} if database_url.startswith("sqlite") else {"pool_size": 1, "pool_overflow": 0}
    opened = Database(engine_of(database_url, pool_timeout_seconds=2, **changes))
    yield opened
    await opened.close()


@pytest.mark.both_databases
async def test_values_go_there_and_back_as_by_sqlalchemy(database: Database) -> None:
    (row,) = await database.fetch(ECHO, PARAMETERS)
    async with database.reading() as connection:
        expected = (await connection.execute(ECHO.query, PARAMETERS)).one()
    assert list(row) == list(expected)
    assert dict(zip(VALUES, row, strict=True)) == PARAMETERS


async def test_one_that_is_cancelled_or_cut_off_spoils_no_other(postgresql_databases: PostgresqlDatabases) -> None:
    url = postgresql_databases.create()
    database = Database(engine_of(url, pool_size=1, pool_overflow=0, pool_timeout_seconds=2))
    sleep = Statement(sa.select(sa.func.pg_sleep(30)))
    pid = Statement(sa.select(sa.func.pg_backend_pid()))
    for _ in range(2):
        hanging = asyncio.create_task(database.fetch(sleep, {}))
        await asyncio.wait({hanging}, timeout=0.05)
        hanging.cancel()
        await asyncio.wait({hanging})
        assert hanging.cancelled()
        assert len(await database.fetch(pid, {})) == 1
    ((mine,),) = await database.fetch(pid, {})
    hanging = asyncio.create_task(database.fetch(sleep, {}))
    await asyncio.wait({hanging}, timeout=0.05)
    other = Database(engine_of(url))
    async with other.reading() as connection:
        await connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 1000)"), {"pid": mine})
    with pytest.raises(DatabaseUnavailable) as cut:
        await hanging
    assert cut.value.failure.cause in {Cause.STOPPING, Cause.UNREACHABLE}
    assert len(await database.fetch(pid, {})) == 1
    await database.close()
    await other.close()
    postgresql_databases.give_back(url)


async def test_a_mistake_of_ours_stays_one_and_gives_the_connection_back(
    postgresql_databases: PostgresqlDatabases,
) -> None:
    url = postgresql_databases.create()
    database = Database(engine_of(url, pool_size=1, pool_overflow=0, pool_timeout_seconds=2))
    for _ in range(2):
        with pytest.raises(Exception, match="division by zero"):
            await database.fetch(Statement(sa.select(sa.literal_column("1 / 0"))), {})
        with pytest.raises(DatabaseUnavailable) as missing:
            await database.fetch(Statement(sa.select(sa.column("x")).select_from(sa.table("elsewhere"))), {})
        assert missing.value.failure.cause is Cause.SCHEMA
    await database.close()
    postgresql_databases.give_back(url)
