"""A table that is cut into slices is the whole table, and none of them reads more than itself."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.slices import count_rows, slices
from app.linked_accounts.store import KNOWN, count_known_of_all_owners, count_some_known
from app.linked_accounts.tables import linked_accounts
from tests.support.databases import engine_of

pytestmark = pytest.mark.anyio

_C = linked_accounts.c
_ROWS = 3000
_PAGES = 8
_NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    """Open a store of 3,000 accounts of which every third is deleted."""
    engine = engine_of(database_url)
    rows: list[dict[str, Any]] = [
        {"account_id": f"a{n:06}", "owner_id": "org", "verified_at": _NOW, "deleted_at": None if n % 3 else _NOW}
        for n in range(_ROWS)
    ]
    try:
        async with engine.begin() as opened:
            await opened.execute(sa.insert(linked_accounts), rows)
        async with engine.connect() as opened:
            yield opened
    finally:
        await engine.dispose()


@pytest.mark.both_databases
async def test_every_row_is_in_one_slice(connection: AsyncConnection) -> None:
    found: list[str] = []
    pieces = [piece async for piece in slices(connection, linked_accounts, pages=_PAGES)]
    for piece in pieces:
        found.extend((await connection.execute(sa.select(_C.account_id).where(piece))).scalars())
    assert sorted(found) == [f"a{n:06}" for n in range(_ROWS)]
    assert (len(pieces) > 3) is (connection.dialect.name == "postgresql")


@pytest.mark.both_databases
async def test_conditions_are_counted_in_one_walk(connection: AsyncConnection) -> None:
    counts = await count_rows(connection, linked_accounts, KNOWN, sa.not_(KNOWN), _C.owner_id.is_(None), pages=_PAGES)
    assert counts == [2000, 1000, 0]
    assert await count_known_of_all_owners(connection) == 2000
    assert [await count_some_known(connection, at_most=most) for most in (0, 7, 5000)] == [0, 7, 2000]


@pytest.mark.both_databases
async def test_an_empty_table_has_no_rows(connection: AsyncConnection) -> None:
    await connection.execute(sa.delete(linked_accounts))
    assert await count_rows(connection, linked_accounts, KNOWN, pages=_PAGES) == [0]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_slice_reads_its_pages_and_no_others(connection: AsyncConnection) -> None:
    read: list[int] = []
    async for piece in slices(connection, linked_accounts, pages=_PAGES):
        query = sa.select(sa.func.count()).select_from(linked_accounts).where(piece)
        text = str(query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
        told = await connection.execute(sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}"))
        plan = told.scalar_one()[0]["Plan"]
        read.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert len(read) > 3
    assert max(read) <= _PAGES
