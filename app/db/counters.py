"""Numbers that only grow, one row each: read tickets, feed positions, how far a reader has come."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

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
