"""Fixtures that every test may ask for."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.logs import configure_logs
from tests.support.databases import PostgresqlDatabases, SqliteDatabases, postgresql_server
from tests.support.world import World, open_world


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _logs_as_in_production() -> None:
    """Log as the broker does: redacted JSON."""
    configure_logs("INFO")


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """Name this test process."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "main"))


@pytest.fixture(scope="session")
def postgresql_databases(tmp_path_factory: pytest.TempPathFactory, worker: str) -> Iterator[PostgresqlDatabases]:
    """Give access to PostgreSQL databases with the newest schema."""
    with postgresql_server(tmp_path_factory.mktemp("postgresql")) as url:
        databases = PostgresqlDatabases(url, worker)
        yield databases
        databases.close()


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    """Give access to SQLite files with the newest schema."""
    return SqliteDatabases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Make a fresh database with the newest schema; every test that asks runs on both kinds."""
    databases: SqliteDatabases | PostgresqlDatabases = request.getfixturevalue(f"{request.param}_databases")
    url = databases.create()
    yield url
    databases.give_back(url)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """Start the emulator, an identity provider and the broker."""
    async with open_world(database_url) as opened:
        yield opened
