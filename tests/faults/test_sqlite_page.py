"""The table of SQLite in docs/behaviour.md, row by row: what callers are told, the log line, the metric, /readyz."""

import asyncio
import os
import pwd
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.databases import SqliteDatabases
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "behaviour.md").read_text()
[TABLE] = re.findall(r"^\| SQLite \|.*?(?=\n\n|\n\Z|\Z)", PAGE, re.DOTALL | re.MULTILINE)
ROWS = {
    what: (cause.strip("`"), detail, readyz)
    for what, cause, detail, readyz in (
        [cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()[2:]
    )
}
DATABASE = {"pool_timeout_seconds": 1, "statement_timeout_seconds": 1}


@asynccontextmanager
async def broker_on(file: Path) -> AsyncIterator[World]:
    async with open_world(f"sqlite:///{file}", database=DATABASE, sync={"enabled": False}) as world:
        yield world


@contextmanager
def as_somebody(file: Path) -> Iterator[None]:
    """Be somebody who may only read the file: to root no permissions apply."""
    before = os.geteuid()
    file.chmod(0o444)
    file.parent.chmod(0o555)
    if before == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(before)
        file.parent.chmod(0o755)


@asynccontextmanager
async def read_only(file: Path) -> AsyncIterator[World]:
    async with broker_on(file) as world:
        await world.runtime.database.engine.dispose()
        with as_somebody(file):
            yield world


@asynccontextmanager
async def full(file: Path) -> AsyncIterator[World]:
    async with broker_on(file) as world:
        assert (await mint(world)) == 201
        # It has one connection.
        async with world.runtime.database.reading() as connection:
            pages = await connection.scalar(sa.text("PRAGMA page_count"))
            await connection.execute(sa.text(f"PRAGMA max_page_count = {pages}"))
            used = await connection.scalar(sa.text("PRAGMA freelist_count"))
        assert used == 0
        yield world


@asynccontextmanager
async def locked(file: Path) -> AsyncIterator[World]:
    async with broker_on(file) as world:
        assert (await mint(world)) == 201
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield world
        finally:
            other.close()


@asynccontextmanager
async def damaged(file: Path) -> AsyncIterator[World]:
    async with broker_on(file) as world:
        await world.runtime.database.engine.dispose()
        await asyncio.to_thread(file.write_bytes, b"no database " * 1000)
        yield world


@asynccontextmanager
async def without_folder(file: Path) -> AsyncIterator[World]:
    async with broker_on(file) as world:
        await world.runtime.database.engine.dispose()
        elsewhere = file.parent.with_name("elsewhere")
        await asyncio.to_thread(file.parent.rename, elsewhere)
        yield world


MAKE: dict[str, Callable[[Path], AbstractAsyncContextManager[World]]] = {
    "file or folder may not be written": read_only,
    "full disk": full,
    "locked by another process": locked,
    "damaged, or no SQLite file": damaged,
    "missing folder": without_folder,
}


async def mint(world: World) -> int:
    answer = await world.broker.post("/v1/connect-sessions", json={"multiple": True}, headers=world.as_user())
    return answer.status_code


@pytest.fixture
def file(sqlite_databases: SqliteDatabases) -> Iterator[Path]:
    """Make a database in a folder that others may enter; pytest's own are root's."""
    with tempfile.TemporaryDirectory(prefix="sqlite-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory) / "data"
        folder.mkdir()
        Path(directory).chmod(0o755)
        url = sqlite_databases.create()
        (folder / "broker.db").write_bytes(Path(url.removeprefix("sqlite:///")).read_bytes())
        sqlite_databases.give_back(url)
        yield folder / "broker.db"


def test_every_row_of_the_page_is_played() -> None:
    assert MAKE.keys() == ROWS.keys()


@pytest.mark.parametrize("what", MAKE)
async def test_a_file_that_refuses_is_named_everywhere(file: Path, what: str) -> None:
    cause, detail, readyz = ROWS[what]
    async with MAKE[what](file) as world:
        answers = []
        with capture_logs() as logs:
            # A full disk still has room on the pages that are begun.
            for _ in range(400):
                answer = await world.broker.post(
                    "/v1/connect-sessions", json={"multiple": True}, headers=world.as_user()
                )
                answers.append(answer)
                if answer.status_code == 503:
                    break
        assert answers[-1].status_code == 503, answers[-1].text
        assert answers[-1].json()["detail"] == detail
        assert int(answers[-1].headers["retry-after"]) >= 1
        [line] = [line for line in logs if line["event"] == "database_unavailable"]
        assert line["cause"] == cause
        assert line["remedy"]
        assert "exc_info" not in line
        ready = await world.broker.get("/readyz")
        assert ready.status_code == int(readyz[:3]), ready.text
        assert ready.json()["checks"]["database"] == (detail if ready.status_code == 503 else "ok")
        counted = world.runtime.metrics.registry.get_sample_value("broker_database_failures_total", {"cause": cause})
        assert counted
