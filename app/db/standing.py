"""How the database stands, asked within a deadline: for /readyz, and for doctor."""

import asyncio
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database
from app.db.failures import Cause, DatabaseUnavailable, Failure
from app.db.schema_version import Fit, known_revisions, stored_schema

# After a failover, and where the role or the server was told so, PostgreSQL takes reads and refuses writes.
_IS_READ_ONLY: Final = sa.text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean")
# Looks that were given up and still wind up their connection; kept so that they are not collected before their end.
_winding_up: set[asyncio.Task["Standing"]] = set()


@dataclass(frozen=True)
class Standing:
    """What was found: a failure, or the schema."""

    failure: Failure | None = None
    fit: Fit | None = None


async def look(database: Database, *, within: float) -> Standing:
    """Look at the database. Never raises, and never takes longer than `within` seconds.

    What a driver does to end a connection that hangs may take longer than that, and is not waited for.
    """
    task = asyncio.create_task(_look(database))
    try:
        done, _ = await asyncio.wait({task}, timeout=within)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    task.cancel()
    _winding_up.add(task)
    task.add_done_callback(_wound_up)
    return Standing(failure=Failure(Cause.UNREACHABLE))


def _wound_up(task: "asyncio.Task[Standing]") -> None:
    _winding_up.discard(task)
    if not task.cancelled():
        # Looked at, so that the loop does not report it.
        task.exception()


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
