"""Moving everything from one database to another: every table of the metadata, verified by counts and digests."""

import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.schema_version import schema_compatibility
from app.db.tables import metadata

_BATCH: Final = 1000
# The target's own migrations have written it.
_LEFT_OUT: Final = frozenset({schema_compatibility.name})


class MoveRefused(Exception):
    """Nothing was moved; the text says why, and what to do."""


def moved_tables() -> list[sa.Table]:
    """Return every table that is moved, in an order in which they can be filled."""
    return [table for table in metadata.sorted_tables if table.name not in _LEFT_OUT]


def require_unused(path: Path) -> None:
    """Raise MoveRefused while a process has a SQLite database open: what it writes meanwhile would be left behind."""
    if not path.is_file():
        message = f"there is no database at {path}"
        raise MoveRefused(message)
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        try:
            # In WAL mode this lock is had only where no other connection is open at all.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            message = "a broker is serving from this database, or another program has it open: stop it first"
            raise MoveRefused(message) from None


async def move(source: AsyncEngine, target: AsyncEngine, *, told: Callable[[int], None]) -> Mapping[str, int]:
    """Copy every row into an empty database of the same schema, in one transaction; return how many, by table.

    Nobody writes into the source meanwhile. `told` is called with the number of rows done. Raises MoveRefused, and
    nothing is kept, if the target is not empty or what it holds in the end is not what the source holds.
    """
    counts: dict[str, int] = {}
    done = 0
    async with source.connect() as reading, target.begin() as writing:
        for table in moved_tables():
            if await writing.scalar(sa.select(sa.literal(1)).select_from(table).limit(1)) is not None:
                message = f"the target is not empty: {table.name} has rows"
                raise MoveRefused(message)
        for table in moved_tables():
            counts[table.name] = 0
            async for rows in _batches(reading, table):
                await writing.execute(sa.insert(table), rows)
                counts[table.name] += len(rows)
                done += len(rows)
                told(done)
            await _go_on_numbering(writing, table)
        for table in moved_tables():
            if await _digest(reading, table) != await _digest(writing, table):
                message = f"{table.name} is not the same in both databases; nothing was kept"
                raise MoveRefused(message)
    return counts


async def count_rows(source: AsyncEngine) -> int:
    """Return how many rows are to be moved."""
    async with source.connect() as connection:
        return sum(
            [
                int(await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
                for table in moved_tables()
            ]
        )


async def _batches(connection: AsyncConnection, table: sa.Table) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the rows of a table in the order of its key, by the names that the code has for its columns."""
    query = sa.select(*(column.label(column.key) for column in table.c)).order_by(*table.primary_key)
    async with connection.stream(query.execution_options(yield_per=_BATCH)) as found:
        async for rows in found.mappings().partitions(_BATCH):
            yield [dict(row) for row in rows]


async def _go_on_numbering(connection: AsyncConnection, table: sa.Table) -> None:
    """Have PostgreSQL number new rows from where the other database was."""
    column = table.autoincrement_column
    if connection.dialect.name != "postgresql" or column is None or column.autoincrement is not True:
        return
    newest = sa.select(sa.func.max(column)).scalar_subquery()
    sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
    await connection.execute(sa.select(sa.func.setval(sequence, sa.func.coalesce(newest, 1), newest.is_not(None))))


async def _digest(connection: AsyncConnection, table: sa.Table) -> tuple[int, str]:
    """Return the number of a table's rows, and a digest of them that does not depend on the database or their order."""
    count, total = 0, 0
    async for rows in _batches(connection, table):
        for row in rows:
            spelled = json.dumps({name: _spelled(value) for name, value in sorted(row.items())}, sort_keys=True)
            total = (total + int.from_bytes(hashlib.sha256(spelled.encode()).digest())) % 2**256
        count += len(rows)
    return count, f"{total:x}"


def _spelled(value: object) -> object:
    return value if value is None or isinstance(value, (bool, int, float, str, list, dict)) else repr(value)
