"""Numbers that only grow, one row each: read tickets, feed positions, how far a reader has come."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from app.db.tables import metadata, upsert

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    comment="Numbers that only grow: read tickets and feed positions.",
)


async def counter_value(connection: AsyncConnection, counter: str) -> int:
    """Return the value of a counter, 0 for one that was never raised."""
    query = sa.select(counters.c.value).where(counters.c.name == counter)
    return int((await connection.execute(query)).scalar_one_or_none() or 0)


async def counter_values(connection: AsyncConnection, prefix: str) -> dict[str, int]:
    """Return every counter whose name begins so."""
    query = sa.select(counters.c.name, counters.c.value).where(counters.c.name.startswith(prefix, autoescape=True))
    return {name: int(value) for name, value in await connection.execute(query)}


async def raise_counter(connection: AsyncConnection, counter: str, to: int) -> None:
    """Raise a counter to a value, unless it is there already."""
    statement = upsert(connection, counters, {"name": counter, "value": to})
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[counters.c.name], set_={"value": to}, where=counters.c.value < to
        )
    )


async def advance(connection: AsyncConnection, counter: str, by: int = 1) -> int:
    """Raise a counter and return its new value, in the caller's transaction.

    The counter's row stays locked until that transaction ends: whoever gets a higher number commits later.
    """
    statement = upsert(connection, counters, {"name": counter, "value": by})
    result = await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[counters.c.name], set_={"value": counters.c.value + by}
        ).returning(counters.c.value)
    )
    return int(result.scalar_one())


def advancing(counter: str, by: sa.ColumnElement[int], *, where: sa.ColumnElement[bool]) -> ReturningInsert[Any]:
    """Do what `advance` does within a larger statement of PostgreSQL, if there is something to number."""
    statement = postgresql.insert(counters)
    statement = statement.from_select(
        ["name", "value"], sa.select(sa.literal_column(f"'{counter}'", sa.Text), by).where(where)
    )
    return statement.on_conflict_do_update(
        index_elements=[counters.c.name], set_={"value": counters.c.value + statement.excluded.value}
    ).returning(counters.c.value)
