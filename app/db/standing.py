"""How the database stands, asked within a deadline: for /readyz, and for doctor."""

import asyncio
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database
from app.db.failures import Cause, DatabaseUnavailable, Failure
from app.db.schema_version import Fit, known_revisions, stored_schema

# After a failover, and where the role or the server was told so, PostgreSQL takes reads and refuses writes.
_IS_READ_ONLY: Final = sa.text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean")
# The look that is under way at each database: probes that come meanwhile wait for the same one.
_under_way: WeakKeyDictionary[Database, asyncio.Task["Standing"]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Standing:
    """What was found: a failure, or the schema."""

    failure: Failure | None = None
    fit: Fit | None = None


async def look(database: Database, *, within: float) -> Standing:
    """Look at the database. Never raises, and never takes longer than `within` seconds.

    A look that takes longer goes on by itself, until the limits for connections and statements end it: cancelling one
    while it connects would cost more than that.
    """
    task = _under_way.get(database)
    if task is None or task.done():
        task = _under_way[database] = asyncio.create_task(_look(database))
    done, _ = await asyncio.wait({task}, timeout=within)
    return task.result() if done else Standing(failure=Failure(Cause.UNREACHABLE))


async def _look(database: Database) -> Standing:
    try:
        if database.dialect == "sqlite":
            # BEGIN IMMEDIATE fails on a file that may not be written, and on one that somebody else keeps locked.
            async with database.transaction() as connection:
                return await _fit(connection)
        async with database.reading() as connection:
            if not await connection.scalar(_IS_READ_ONLY):
                return await _fit(connection)
        return Standing(failure=database.found(Failure(Cause.READ_ONLY)))
    except DatabaseUnavailable as error:
        return Standing(failure=error.failure)


async def _fit(connection: AsyncConnection) -> Standing:
    return Standing(fit=(await connection.run_sync(stored_schema)).fit(known_revisions()))
