"""The mirror: copy == store == StackOne, whatever is killed, lost, doubled or restored meanwhile.

BROKER_CHAOS=full plays the whole run: 500 changes, 50 kills. Without, a tenth of it.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.db.tables import metadata
from app.identity.caller import Scope
from app.sync.refresh import refresh_due
from app.sync.sweep import run_sweep
from connect_broker_client import AsyncBroker, Broker
from connect_broker_client.aio_mirror import AsyncMirror
from connect_broker_client.copies import COLUMNS
from tests.client.test_client import linked, set_status
from tests.support.databases import PostgresqlDatabases
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

_IS_FULL = os.environ.get("BROKER_CHAOS") == "full"
_CHANGES, _KILLS = (500, 50) if _IS_FULL else (50, 5)
_QUIET: dict[str, Any] = {
    "limits": dict.fromkeys(("requests_per_user", "requests_per_owner", "requests_per_service"), "1000000/minute"),
    "stackone": {"requests_per_minute": 100_000},
}


@asynccontextmanager
async def mirrored(world: World, tmp_path: Path, **options: Any) -> AsyncIterator[tuple[AsyncMirror, AsyncEngine]]:
    engine = options.pop("engine", None) or create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/copy.db")
    try:
        async with AsyncBroker(str(world.broker.base_url), world.service_key) as broker:
            yield AsyncMirror(broker, engine, options.pop("table", "broker_accounts"), **options), engine
    finally:
        await engine.dispose()


async def copy_of(engine: AsyncEngine, table: sa.Table) -> dict[str, dict[str, Any]]:
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.select(table))).mappings()
        return {row["account_id"]: {name: row[name] for name in COLUMNS if name in table.c} for row in rows}


async def store_of(world: World, names: tuple[str, ...] = COLUMNS) -> dict[str, dict[str, Any]]:
    """Return what the broker says, in the way that SQLite keeps it: times without a zone."""
    async with AsyncBroker(str(world.broker.base_url), world.service_key) as broker:
        found = {}
        async for account in broker.accounts.list():
            told = account.model_dump(include=set(names))
            times = {name: value.replace(tzinfo=None) for name, value in told.items() if hasattr(value, "tzinfo")}
            found[account.account_id] = told | times
        return found


def shape_of(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {one: (row["owner_id"], row["provider"], row["status"], row["label"]) for one, row in rows.items()}


def upstream_of(world: World) -> dict[str, tuple[Any, ...]]:
    """Return what StackOne has."""
    return {
        account.id: (account.origin_owner_id, account.provider, account.status, str(account.label or "") or None)
        for account in world.project.accounts
    }


async def save(world: World) -> dict[str, list[dict[str, Any]]]:
    """Back the broker's database up."""
    async with world.runtime.database.reading() as connection:
        return {
            table.name: [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]
            for table in metadata.sorted_tables
        }


async def restore(world: World, saved: dict[str, list[dict[str, Any]]]) -> None:
    """Put a backup back."""
    async with world.runtime.database.transaction() as connection:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(sa.delete(table))
        for table in metadata.sorted_tables:
            if saved[table.name]:
                await connection.execute(sa.insert(table), saved[table.name])


async def test_a_copy_is_made_and_kept(world: World, tmp_path: Path) -> None:
    ids = [await linked(world, user, multiple=True) for user in ("alice", "bob") * 4]
    async with mirrored(world, tmp_path, page_size=3) as (mirror, engine):
        assert await mirror.catch_up() == 8
        assert await copy_of(engine, mirror.table) == await store_of(world)
        await set_status(world, ids[0], "alice", "error")
        await world.broker.delete(f"/v1/linked-accounts/{ids[1]}", headers=world.as_user("bob"))
        await linked(world, "alice", multiple=True)
        assert await mirror.catch_up() >= 3
        copy = await copy_of(engine, mirror.table)
        assert copy == await store_of(world)
        assert copy[ids[0]]["needs_reauth"]
        assert await mirror.catch_up() == 0
    # Another process goes on where this one was.
    async with mirrored(world, tmp_path) as (mirror, _):
        assert await mirror.catch_up() == 0


async def test_a_table_of_the_callers_keeps_its_own_columns(world: World, tmp_path: Path) -> None:
    mine = sa.Table(
        "integrations",
        sa.MetaData(),
        sa.Column("account_id", sa.String(255), primary_key=True),
        sa.Column("provider", sa.Text),
        sa.Column("usable", sa.Boolean),
        sa.Column("notes", sa.Text),
    )
    account_id = await linked(world, "alice")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/mine.db")

    def work(*, note: str | None = None) -> list[tuple[Any, ...]]:
        with Broker(str(world.broker.base_url), world.service_key) as broker:
            broker.mirror(engine, mine).catch_up()
        with engine.begin() as connection:
            if note:
                connection.execute(sa.update(mine).values(notes=note))
            return [tuple(row) for row in connection.execute(sa.select(mine))]

    await asyncio.to_thread(work, note="ours")
    await set_status(world, account_id, "alice", "error")
    assert await asyncio.to_thread(work) == [(account_id, "bamboohr", False, "ours")]
    await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user())
    assert await asyncio.to_thread(work) == []
    engine.dispose()


async def test_what_is_gone_when_a_snapshot_starts_anew_goes_from_the_copy(world: World, tmp_path: Path) -> None:
    saved = await save(world)
    ids = [await linked(world, "alice", multiple=True) for _ in range(5)]
    async with mirrored(world, tmp_path, page_size=2) as (mirror, engine):
        await mirror.catch_up()
        # The backup knows of nothing, and of what was linked StackOne has but one.
        for account_id in ids[1:]:
            await world.switch("DELETE", f"/accounts/{account_id}")
        await restore(world, saved)
        await run_sweep(world.runtime, by="test")
        await mirror.catch_up()
        assert set(await copy_of(engine, mirror.table)) == {ids[0]}


@pytest.mark.parametrize("when", ["snapshot", "feed"])
async def test_a_restore_behind_a_lagging_copy_is_noticed(database_url: str, tmp_path: Path, when: str) -> None:
    """The copy has not come to the changes that were lost, and yet it knows their effects."""
    async with open_world(database_url, webhooks=False, sync={"enabled": False}) as world:
        ids = sorted([await linked(world, "alice", multiple=True) for _ in range(6)])
        async with mirrored(world, tmp_path, page_size=2) as (mirror, engine):
            if when == "feed":
                await mirror.catch_up()
                for account_id in ids:
                    await set_status(world, account_id, "alice", "inactive")
            saved = await save(world)
            if when == "snapshot":
                await mirror._step(wait=0)  # noqa: SLF001  killed after the first page
                for account_id in ids:
                    await set_status(world, account_id, "alice", "error")
                await mirror._step(wait=0)  # noqa: SLF001  and after the second
            else:
                for account_id in ids:
                    await set_status(world, account_id, "alice", "error")
                await mirror._step(wait=0)  # noqa: SLF001  lags, and has seen `error`
            await restore(world, saved)
            # It works again before the restored broker looks: no change is ever told of.
            before = "active" if when == "snapshot" else "inactive"
            for account_id in ids:
                await set_status(world, account_id, "alice", before)
            await mirror.catch_up()
            assert {row["status"] for row in (await copy_of(engine, mirror.table)).values()} == {before}
            names = tuple(name for name in COLUMNS if name != "recovered_at")
            copy = {
                one: {name: row[name] for name in names} for one, row in (await copy_of(engine, mirror.table)).items()
            }
            assert copy == await store_of(world, names)


async def test_a_key_for_some_owners_copies_those(world: World, tmp_path: Path) -> None:
    for user in ("alice", "bob") * 4:
        await linked(world, user, multiple=True)
    world.service_key = await world.create_key(Scope.ACCOUNTS_READ, Scope.EVENTS_READ, owners=("org_acme",))
    async with mirrored(world, tmp_path, page_size=2) as (mirror, engine):
        await mirror.catch_up()
        moved, *_ = [await linked(world, user, multiple=True) for user in ("alice", "bob", "alice", "bob")]
        assert await mirror.catch_up() >= 2
        copy = await copy_of(engine, mirror.table)
        assert copy == await store_of(world)
        assert {row["owner_id"] for row in copy.values()} == {"org_acme"}
        # What goes to another owner leaves the copy.
        await world.switch("PATCH", f"/accounts/{moved}", {"origin_owner_id": "org_globex"})
        await run_sweep(world.runtime, by="test")
        await mirror.catch_up()
        assert moved not in await copy_of(engine, mirror.table)
        assert await copy_of(engine, mirror.table) == await store_of(world)


async def test_the_copy_may_be_in_postgresql(
    world: World, postgresql_databases: PostgresqlDatabases, tmp_path: Path
) -> None:
    ids = [await linked(world, user, multiple=True) for user in ("alice", "bob") * 3]
    with postgresql_databases.empty() as url:
        engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
        async with mirrored(world, tmp_path, page_size=2, engine=engine) as (mirror, _):
            async with mirrored(world, tmp_path, page_size=1, engine=engine) as (other, _):
                await mirror._step(wait=0)  # noqa: SLF001  the tables are there
                await asyncio.gather(mirror.catch_up(), other.catch_up(), mirror.catch_up())
            await set_status(world, ids[0], "alice", "error")
            await world.broker.delete(f"/v1/linked-accounts/{ids[1]}", headers=world.as_user("bob"))
            await mirror.catch_up()
            copy = {
                one: {name: _plain(value) for name, value in row.items()}
                for one, row in (await copy_of(engine, mirror.table)).items()
            }
            assert copy == await store_of(world)
            assert len(copy) == 5


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


async def test_an_account_that_changes_hands_stays_in_the_copy(world: World, tmp_path: Path) -> None:
    account_id = await linked(world, "alice")
    async with mirrored(world, tmp_path) as (mirror, engine):
        await mirror.catch_up()
        # There and back again within one page of the feed: both have lost it, and one has it.
        for owner_id in ("org_globex", "org_acme", "org_globex"):
            await world.switch("PATCH", f"/accounts/{account_id}", {"origin_owner_id": owner_id})
            await run_sweep(world.runtime, by="test")
        await mirror.catch_up()
        copy = await copy_of(engine, mirror.table)
        assert copy == await store_of(world)
        assert copy[account_id]["owner_id"] == "org_globex"


async def test_several_processes_may_keep_one_copy(world: World, tmp_path: Path) -> None:
    for user in ("alice", "bob") * 5:
        await linked(world, user, multiple=True)
    async with mirrored(world, tmp_path, page_size=2) as (mirror, engine), mirrored(world, tmp_path) as (other, _):
        await mirror._step(wait=0)  # noqa: SLF001  the tables are there
        await asyncio.gather(mirror.catch_up(), other.catch_up())
        assert await copy_of(engine, mirror.table) == await store_of(world)


@pytest.mark.timeout(900 if _IS_FULL else 180)
async def test_copy_is_store_is_stackone_after_chaos(database_url: str, tmp_path: Path) -> None:
    async with open_world(database_url, **_QUIET) as world:
        play = _Play(world, tmp_path, random.Random(12))  # noqa: S311  no secret
        try:
            await play.run()
        finally:
            play.kill()
        await play.settle()
        store = await store_of(world)
        assert shape_of(store) == upstream_of(world)
        async with mirrored(world, tmp_path) as (mirror, engine):
            await mirror.catch_up()
            assert await copy_of(engine, mirror.table) == store
        assert play.starts == _KILLS + 1
        assert len(store) > 3


class _Play:
    """Changes at StackOne, lies on the wire of webhooks, a consumer that is killed, and one restore."""

    def __init__(self, world: World, tmp_path: Path, chance: random.Random) -> None:
        self._world = world
        self._database = f"sqlite:///{tmp_path}/copy.db"
        self._chance = chance
        self._consumer: subprocess.Popen[str] | None = None
        self.starts = 0

    async def run(self) -> None:
        kills = set(self._chance.sample(range(1, _CHANGES), _KILLS))
        backup, broken = _CHANGES // 3, _CHANGES // 2
        saved: dict[str, list[dict[str, Any]]] = {}
        await self._start()
        for number in range(_CHANGES):
            if number % 5 == 0:
                mode = self._chance.choice(["deliver", "drop", "duplicate", "reorder"])
                await self._world.switch("POST", "/webhooks", {"mode": mode})
            await self._change()
            if number == backup:
                saved = await save(self._world)
            if number == broken:
                await restore(self._world, saved)
            if number in kills:
                await asyncio.sleep(self._chance.random() / 20)
                self.kill()
                await self._start()

    async def _change(self) -> None:
        ids = [account.id for account in self._world.project.accounts]
        what = self._chance.choices(["link", "status", "label", "owner", "delete"], [4, 6, 3, 1, 2])[0]
        if what == "link" or not ids:
            user = self._chance.choice(["alice", "bob"])
            await self._world.link(user, self._chance.choice(["bamboohr", "workday"]), multiple=True)
            return
        one = f"/accounts/{self._chance.choice(ids)}"
        if what == "delete":
            await self._world.switch("DELETE", one)
            return
        change = {
            "status": {"status": self._chance.choice(["active", "error", "inactive", "expired"])},
            "label": {"label": f"label {self._chance.random()}"},
            "owner": {"origin_owner_id": self._chance.choice(["org_acme", "org_globex"])},
        }[what]
        await self._world.switch("PATCH", one, change)

    async def _start(self) -> None:
        program = Path(__file__).with_name("consumer.py")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "clients/python/src")}
        self._consumer = subprocess.Popen(  # noqa: ASYNC220  it returns at once
            [sys.executable, program, str(self._world.broker.base_url), self._world.service_key, self._database],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._consumer.stdout is not None
        assert await asyncio.to_thread(self._consumer.stdout.readline) == "ready\n"
        self.starts += 1

    def kill(self) -> None:
        if self._consumer is not None:
            self._consumer.send_signal(signal.SIGKILL)
            self._consumer.communicate()
            self._consumer = None

    async def settle(self) -> None:
        """Let the broker find what its webhooks have not told it."""
        await self._world.switch("POST", "/webhooks", {"mode": "deliver"})
        for _ in range(20):
            await run_sweep(self._world.runtime, by="test", max_removal_percent=100)
            await refresh_due(self._world.runtime)
            if shape_of(await store_of(self._world)) == upstream_of(self._world):
                return
            await asyncio.sleep(0.2)
