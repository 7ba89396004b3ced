"""Fixtures that every test may ask for, and what makes a run of them repeatable.

Nothing random decides whether a test passes: Hypothesis plays the same examples each time, and Python's own chance
begins at the same place in each test. BROKER_TEST_CHANCE=free gives both their freedom back, for long runs.
"""

import os
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings

from app.logs import configure_logs
from tests.support.databases import PostgresqlDatabases, SqliteDatabases, fresh_database, postgresql_server
from tests.support.world import World, open_world

_IS_REPEATABLE = os.environ.get("BROKER_TEST_CHANCE", "fixed") != "free"
_SEED = 8
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  the directory made in it is this user's only
_ROOM_FOR_FILES = 1 << 30

# How long an example takes depends on what else the machine does, so it fails nothing.
settings.register_profile(
    "fixed", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("free", deadline=None, suppress_health_check=list(HealthCheck))
# Before the modules with tests are imported: their own settings are laid over the profile that is loaded then.
settings.load_profile("fixed" if _IS_REPEATABLE else "free")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test whose SQL differs between the databases on both of them, and any other on SQLite."""
    for url in {"database_url", "attacked_url"} & set(metafunc.fixturenames):
        if metafunc.definition.get_closest_marker("both_databases"):
            metafunc.parametrize(url, ["sqlite", "postgresql"], indirect=True, scope=_SCOPES[url])


_SCOPES: dict[str, Literal["function", "module"]] = {"database_url": "function", "attacked_url": "module"}


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    """Begin every test with the same random numbers."""
    if _IS_REPEATABLE:
        random.seed(_SEED)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _settings_of_the_run_are_none_of_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what is said to the suite itself: a broker that a test starts would refuse it as an unknown setting."""
    for name in [name for name in os.environ if name.startswith("BROKER_TEST_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logs_as_in_production() -> None:
    """Log as the broker does, redacted JSON, whatever a command that ran in this process before has set."""
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
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteDatabases]:
    """Give access to SQLite files with the newest schema: in memory where there is room, as no test cuts the power."""
    room = shutil.disk_usage(_IN_MEMORY).free if _IN_MEMORY.is_dir() else 0
    if room < _ROOM_FOR_FILES:
        yield SqliteDatabases(tmp_path_factory.mktemp("sqlite"))
        return
    with TemporaryDirectory(dir=_IN_MEMORY, prefix="broker-tests-") as directory:
        yield SqliteDatabases(Path(directory))


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Make a fresh database with the newest schema: of SQLite, or of both kinds for a test marked `both_databases`."""
    yield from fresh_database(request)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """Start the emulator, an identity provider and the broker."""
    async with open_world(database_url) as opened:
        yield opened
