"""Migrations go up and down on both databases and end where the code's tables are."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.ext.asyncio import create_async_engine

from app.db.engine import engine_url
from app.db.schema_version import alembic_config, expected_revision, stored_revision
from app.db.tables import metadata
from tests.support.databases import PostgresqlDatabases

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(
    request: pytest.FixtureRequest, tmp_path: Path, postgresql_databases: PostgresqlDatabases
) -> Iterator[str]:
    """Make a database without a schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with postgresql_databases.empty() as url:
        yield url


async def tables_and_revision(url: str) -> tuple[set[str], str | None]:
    engine = create_async_engine(engine_url(url))
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: set(sa.inspect(sync).get_table_names()))
        revision = await connection.run_sync(stored_revision)
    await engine.dispose()
    return names - {"alembic_version"}, revision


def test_up_and_down_and_up_again(empty_database_url: str) -> None:
    config = alembic_config(empty_database_url)
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    command.check(config)


async def test_every_single_step_can_be_undone(empty_database_url: str) -> None:
    config = alembic_config(empty_database_url)
    steps = int(expected_revision() or 0)
    before = []
    for _ in range(steps):
        before.append(await tables_and_revision(empty_database_url))
        # In a thread: the migration environment runs an event loop of its own.
        await asyncio.to_thread(command.upgrade, config, "+1")
    assert (await tables_and_revision(empty_database_url))[0] == set(metadata.tables)
    for expected in reversed(before):
        await asyncio.to_thread(command.downgrade, config, "-1")
        assert await tables_and_revision(empty_database_url) == expected
