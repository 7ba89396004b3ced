"""A repeat that finds its work done is acknowledged only once a synchronous standby has that work.

PostgreSQL has a commit wait for the standby, but only one that has written something. The first request may have given
up waiting (its connection was lost, its time was over): it was not acknowledged, and what it wrote is there for all to
see, on this server alone. A repeat that only looked would acknowledge what dies with the primary.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


async def await_standby(connection: AsyncConnection, table: sa.Table, condition: sa.ColumnElement[bool]) -> None:
    """Have the transaction's commit wait for the standby although it changes nothing: lock the rows that it goes by.

    The weakest lock there is, which only a removal waits for.
    """
    if connection.dialect.name == "postgresql":
        query = sa.select(sa.literal(1)).select_from(table).where(condition)
        await connection.execute(query.with_for_update(read=True, key_share=True))
