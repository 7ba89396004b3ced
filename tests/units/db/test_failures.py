"""An SQLite file that refuses: each way has a cause of its own."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from app.db.database import Database
from app.db.engine import open_engine
from app.db.failures import Cause, DatabaseUnavailable, failure_of
from app.db.standing import look
from tests.support.databases import SqliteDatabases, engine_of, settings_of

pytestmark = pytest.mark.anyio


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def damage(file: Path) -> None:
    file.write_bytes(b"this is no database" * 1000)


def lose_folder(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()


@pytest.mark.parametrize(("harm", "cause"), [(damage, Cause.CORRUPT), (lose_folder, Cause.CANNOT_OPEN)])
async def test_a_file_that_cannot_be_used_is_named(
    sqlite_databases: SqliteDatabases, tmp_path: Path, harm: Callable[[Path], None], cause: Cause
) -> None:
    file = tmp_path / "folder" / "broker.db"
    file.parent.mkdir()
    file.write_bytes(path_of(sqlite_databases.create()).read_bytes())
    harm(file)
    database = Database(engine_of(f"sqlite:///{file}"))
    try:
        standing = await look(database, within=5)
        assert standing.failure is not None
        assert standing.failure.cause is cause
    finally:
        await database.close()


async def test_a_locked_file_is_named_and_passes(sqlite_databases: SqliteDatabases) -> None:
    url = sqlite_databases.create()
    database = Database(open_engine(settings_of(url), statement_timeout_seconds=0.2))
    with sqlite3.connect(path_of(url), isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable) as refused:
            async with database.transaction():
                pass
        assert refused.value.failure.cause is Cause.LOCK_TIMEOUT
        holder.execute("ROLLBACK")
    holder.close()
    async with database.transaction():
        pass
    await database.close()


async def test_a_read_only_file_is_named(sqlite_databases: SqliteDatabases) -> None:
    database = Database(engine_of(sqlite_databases.create()))
    async with database.reading() as connection:
        await connection.execute(sa.text("PRAGMA query_only = ON"))
    with pytest.raises(DatabaseUnavailable) as refused:
        async with database.transaction() as connection:
            await connection.execute(sa.text("DELETE FROM counters"))
    assert refused.value.failure.cause is Cause.READ_ONLY
    await database.close()


async def test_a_full_disk_is_named(sqlite_databases: SqliteDatabases) -> None:
    database = Database(engine_of(sqlite_databases.create()))
    async with database.reading() as connection:
        await connection.execute(sa.text("PRAGMA max_page_count = 1"))
    with pytest.raises(DatabaseUnavailable) as refused:
        async with database.transaction() as connection:
            await connection.execute(sa.text("CREATE TABLE large AS SELECT randomblob(100000) AS data"))
    assert refused.value.failure.cause is Cause.DISK_FULL
    await database.close()


async def test_a_missing_table_is_the_schema_and_a_wrong_statement_is_ours(sqlite_databases: SqliteDatabases) -> None:
    database = Database(engine_of(sqlite_databases.create()))
    with pytest.raises(DatabaseUnavailable) as refused:
        async with database.reading() as connection:
            await connection.execute(sa.text("SELECT * FROM elsewhere"))
    assert refused.value.failure.cause is Cause.SCHEMA
    with pytest.raises(sa.exc.OperationalError):
        async with database.reading() as connection:
            await connection.execute(sa.text("SELEC 1"))
    await database.close()


def test_no_failure_is_made_of_what_is_none() -> None:
    assert failure_of(ValueError("mine")) is None


def test_a_driver_that_lost_track_of_an_ending_connection_is_no_mistake_of_ours() -> None:
    """As seen while PostgreSQL was stopped in the moment in which a connection to it was opened."""
    lost = asyncpg.exceptions.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
    failure = failure_of(sa.exc.DBAPIError("connect", None, lost))
    assert failure is not None
    assert failure.cause is Cause.UNREACHABLE
