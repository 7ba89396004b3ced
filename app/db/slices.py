"""Looking at every row of a table that is too large for one statement: slice after slice, each within its time."""

from collections.abc import AsyncIterator
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

# 256 MiB: read in a second or two, also where nothing of it is in memory.
SLICE_PAGES: Final = 32_768


class _Tid(sa.types.UserDefinedType[Any]):
    """PostgreSQL's place of a row: page and number."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Say how SQL calls it."""
        return "TID"


async def slices(
    connection: AsyncConnection, table: sa.Table, *, pages: int = SLICE_PAGES
) -> AsyncIterator[sa.ColumnElement[bool]]:
    """Give conditions that cut a table into slices; every row is in one of them. SQLite's file is one slice.

    Slices of pages are read one after the other, as the whole table would be; an index leads all over it instead. A row
    that is written meanwhile may be met twice or not at all: good for counts, and for what is looked for again.
    """
    if connection.dialect.name != "postgresql":
        yield sa.true()
        return
    size = sa.func.pg_relation_size(sa.literal_column(f"'{table.name}'::regclass"))
    block = sa.cast(sa.func.current_setting("block_size"), sa.BigInteger)
    there = int((await connection.execute(sa.select(size / block))).scalar_one())
    place = sa.literal_column(f"{table.name}.ctid", _Tid())
    for first in range(0, max(there, 1), pages):
        begins = place >= _place(first)
        # The last has no end: the table may have grown.
        yield begins if first + pages >= there else sa.and_(begins, place < _place(first + pages))


def _place(page: int) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(f"({page},0)", sa.Text), _Tid())


async def count_rows(
    connection: AsyncConnection, table: sa.Table, *conditions: sa.ColumnElement[bool], pages: int = SLICE_PAGES
) -> list[int]:
    """Count the rows of a table of which each of some conditions is true, in one walk."""
    counts = [0] * len(conditions)
    async for piece in slices(connection, table, pages=pages):
        query = sa.select(*(sa.func.count().filter(condition) for condition in conditions)).select_from(table)
        found = (await connection.execute(query.where(piece))).one()
        counts = [count + more for count, more in zip(counts, found, strict=True)]
    return counts
