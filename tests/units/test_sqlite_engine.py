"""SQLite's connections are threads: whoever is cancelled in the middle of one leaves none behind."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from app.db.database import Database
from app.db.engine import open_engine
from app.settings import DatabaseSettings


def opened(file: Path) -> Database:
    """Open a database that waits a second, not ten, for a lock that somebody left behind."""
    url = SecretStr(f"sqlite:///{file}")
    return Database(open_engine(DatabaseSettings(url=url, statement_timeout_seconds=1)))


async def write_for_ever(database: Database) -> None:
    while True:
        async with database.transaction() as connection:
            await connection.execute(sa.text("SELECT 1"))


async def write_and_be_cancelled(file: Path, *, after: float, cancellations: int) -> None:
    database = opened(file)
    writing = asyncio.create_task(write_for_ever(database))
    await asyncio.sleep(after)
    for _ in range(cancellations):
        writing.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(writing, return_exceptions=True)
    await database.close()


async def write(file: Path) -> None:
    database = opened(file)
    async with database.transaction() as connection:
        await connection.execute(sa.text("SELECT 1"))
    await database.close()


@pytest.mark.parametrize("cancellations", [1, 2])
def test_whatever_was_cancelled_leaves_no_thread_no_open_file_and_no_lock(tmp_path: Path, cancellations: int) -> None:
    """While a file is made, in a transaction, while that is rolled back: each event loop can be closed afterwards.

    A thread that answers to a closed loop fails the test, and so does a file that is still open (Python 3.13 tells).
    """
    for step in range(120):
        file = tmp_path / f"{step}.db"
        asyncio.run(write_and_be_cancelled(file, after=step / 20_000, cancellations=cancellations))
        asyncio.run(write(file))
