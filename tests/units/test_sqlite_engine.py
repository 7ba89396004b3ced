"""SQLite's connections are threads: whoever is cancelled in the middle of one leaves none behind."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from app.db.database import Database
from app.db.engine import open_engine
from app.settings import DatabaseSettings


async def write_for_ever(database: Database) -> None:
    while True:
        async with database.transaction() as connection:
            await connection.execute(sa.text("SELECT 1"))


async def write_and_be_cancelled(url: str, *, after: float, cancellations: int) -> None:
    database = Database(open_engine(DatabaseSettings(url=SecretStr(url))))
    writing = asyncio.create_task(write_for_ever(database))
    await asyncio.sleep(after)
    for _ in range(cancellations):
        writing.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(writing, return_exceptions=True)
    await asyncio.wait_for(database.close(), timeout=10)


@pytest.mark.parametrize("cancellations", [1, 2])
def test_whatever_was_cancelled_a_closed_database_has_no_thread(tmp_path: Path, cancellations: int) -> None:
    """While a file is opened, in a transaction, while that is rolled back: each event loop can be closed afterwards.

    A thread that answers to a closed loop fails the test, and so does a file that is still open (Python 3.13 tells).
    """
    for step in range(60):
        url = f"sqlite:///{tmp_path / 'a.db'}"
        asyncio.run(write_and_be_cancelled(url, after=step / 10_000, cancellations=cancellations))
