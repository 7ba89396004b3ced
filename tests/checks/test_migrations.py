"""Migrations go up and down on both databases and end where the code's tables are."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from app.db.schema_version import (
    Fit,
    StoredSchema,
    alembic_config,
    expected_revision,
    known_revisions,
    stored_schema,
)
from app.db.tables import metadata
from tests.checks.pages import ROOT
from tests.support.databases import PostgresqlDatabases, engine_of, settings_of

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
    engine = engine_of(url)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: set(sa.inspect(sync).get_table_names()))
        revision = (await connection.run_sync(stored_schema)).revision
    await engine.dispose()
    return names - {"alembic_version"}, revision


async def stored(url: str) -> StoredSchema:
    engine = engine_of(url)
    async with engine.connect() as connection:
        schema = await connection.run_sync(stored_schema)
    await engine.dispose()
    return schema


def test_the_environment_imports_every_module_that_has_tables() -> None:
    environment = (ROOT / "migrations/env.py").read_text(encoding="utf-8")
    missing = [
        module
        for path in sorted((ROOT / "app").rglob("*.py"))
        if "sa.Table(" in path.read_text(encoding="utf-8")
        and (module := ".".join(path.relative_to(ROOT).with_suffix("").parts)) not in environment.split()
    ]
    assert missing == [], "a migration written without them would drop their tables"


def test_up_and_down_and_up_again(empty_database_url: str) -> None:
    config = alembic_config(settings_of(empty_database_url))
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    command.check(config)


async def test_every_single_step_can_be_undone(empty_database_url: str) -> None:
    config = alembic_config(settings_of(empty_database_url))
    steps = int(expected_revision())
    before = []
    for _ in range(steps):
        before.append(await tables_and_revision(empty_database_url))
        # In a thread: the migration environment runs an event loop of its own.
        await asyncio.to_thread(command.upgrade, config, "+1")
    assert (await tables_and_revision(empty_database_url))[0] == set(metadata.tables)
    for expected in reversed(before):
        await asyncio.to_thread(command.downgrade, config, "-1")
        assert await tables_and_revision(empty_database_url) == expected


async def test_each_migration_says_whose_code_may_still_serve(empty_database_url: str) -> None:
    config = alembic_config(settings_of(empty_database_url))
    for revision in known_revisions():
        await asyncio.to_thread(command.upgrade, config, revision)
        script = ScriptDirectory.from_config(config).get_revision(revision)
        if revision < "0003" or script is None:
            continue
        assert script.module.oldest_compatible in known_revisions()
        assert (await stored(empty_database_url)).oldest_compatible == script.module.oldest_compatible
    await asyncio.to_thread(command.downgrade, config, "0003")
    assert (await stored(empty_database_url)).oldest_compatible == "0002"


@pytest.mark.parametrize(
    ("revision", "oldest", "fit"),
    [
        (None, None, Fit.MISSING),
        ("0001", None, Fit.BEHIND),
        ("0002", "0001", Fit.CURRENT),
        ("0009", "0002", Fit.COMPATIBLE),
        ("0009", "0001", Fit.COMPATIBLE),
        ("0009", "0003", Fit.TOO_NEW),
        ("0009", None, Fit.TOO_NEW),
    ],
)
def test_a_schema_fits_or_says_what_to_do(revision: str | None, oldest: str | None, fit: Fit) -> None:
    assert StoredSchema(revision, oldest).fit(("0001", "0002")) is fit
    assert fit.serves or "run: broker migrate" in fit.value or "deploy" in fit.value
