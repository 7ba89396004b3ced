"""broker move: everything from SQLite into an empty PostgreSQL, compared, or nothing at all."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.database import Database
from app.db.engine import open_engine
from app.db.move import moved_tables
from app.db.tables import metadata
from app.settings import DatabaseSettings
from tests.support.databases import PostgresqlDatabases
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

SECRET = "whsec_ZGVtby1jYW5hcnktcHVzaC1zZWNyZXQtMDAwMDAwMDA="


async def lived_in(world: World) -> str:
    """Leave something in every table, and return the key that must still open the moved broker."""
    ids = [await world.link("alice", label=f"n° {number} „ü“ 🦜") for number in range(3)]
    for account_id in ids:
        await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    await world.link("bob")
    service = world.as_service()
    owner = "/v1/owners/org_acme"
    invited = await world.broker.post(f"{owner}/invitations", headers=service, json={})
    code = {"code": invited.json()["url"].partition("#")[2]}
    await world.broker.post("/v1/invitations/open", headers=world.as_user("alice"), json=code)
    await world.broker.put(f"{owner}/use/bamboohr", headers=service, json={"account_id": ids[0]})
    await world.broker.delete(f"{owner}/user-tokens", headers=service)
    await world.broker.post("/v1/sync", headers=service)
    await world.switch("PATCH", f"/accounts/{ids[0]}", {"status": "error"})
    await world.broker.delete("/v1/owners/org_globex", headers=service)

    async def settled() -> bool:
        status = await world.broker.get("/v1/sync", headers=service)
        account = await world.broker.get(f"/v1/accounts/{ids[0]}", headers=service)
        return bool(status.json()["last_runs"]) and account.json()["status"] == "error"

    await eventually(settled, within=10)
    return ids[0]


async def everything(url: str) -> dict[str, list[str]]:
    database = Database(open_engine(DatabaseSettings.model_validate({"url": url})))
    try:
        async with database.reading() as connection:
            return {
                # PostgreSQL keeps the members of JSON in an order of its own.
                table.name: sorted(
                    json.dumps([*row], default=repr, sort_keys=True)
                    for row in await connection.execute(sa.select(table))
                )
                for table in moved_tables()
            }
    finally:
        await database.close()


async def broker(world: World, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment_of(world),
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.fixture
def sqlite_url(database_url: str) -> str:
    """Return a fresh SQLite database."""
    return database_url


@pytest.fixture
def postgresql_url(postgresql_databases: PostgresqlDatabases) -> Iterator[str]:
    """Make a PostgreSQL database with nothing in it at all."""
    with postgresql_databases.empty() as url:
        yield url


@pytest.fixture
async def left(sqlite_url: str) -> tuple[World, str]:
    """Have a broker live on SQLite for a while, and stop it."""
    async with open_world(sqlite_url, **PUSH) as world:
        account_id = await lived_in(world)
    return world, account_id


PUSH: dict[str, Any] = {"push": {"destinations": [{"name": "crm", "url": "http://127.0.0.1:1/", "secret": SECRET}]}}


def test_every_table_is_moved() -> None:
    assert {table.name for table in metadata.sorted_tables} - {table.name for table in moved_tables()} == {
        "schema_compatibility"
    }


async def test_everything_is_moved_and_goes_on(left: tuple[World, str], postgresql_url: str, sqlite_url: str) -> None:
    world, account_id = left
    before = await everything(sqlite_url)
    empty = {name for name, rows in before.items() if not rows}
    assert empty <= {"push_deliveries", "leases", "account_events_archive"}, "leave something in every table"
    status, said = await broker(world, "move", "--to", postgresql_url)
    assert status == 0, said
    assert await everything(postgresql_url) == before
    again, said = await broker(world, "move", "--to", postgresql_url)
    assert (again, "not empty" in said) == (1, True)

    async with open_world(postgresql_url, webhooks=False) as moved:
        moved.service_key = world.service_key
        shown = await moved.broker.get(f"/v1/accounts/{account_id}", headers=moved.as_service())
        assert (shown.status_code, shown.json()["status"]) == (200, "error")
        # New rows are numbered behind the moved ones.
        linked = await moved.link("alice", "workday")
        confirmed = await moved.broker.post(f"/v1/linked-accounts/{linked}/confirm", headers=moved.as_user("alice"))
        assert confirmed.status_code == 200, confirmed.text
        assert (await moved.broker.post("/v1/sync", headers=moved.as_service())).status_code == 202


async def test_nothing_is_moved_while_a_broker_serves(sqlite_url: str, postgresql_url: str) -> None:
    async with open_world(sqlite_url) as world:
        await world.mint()
        status, said = await broker(world, "move", "--to", postgresql_url)
        assert (status, "stop it first" in said) == (1, True), said
        assert (await world.mint()).status_code == 201


async def test_what_cannot_be_moved_is_one_sentence(left: tuple[World, str], tmp_path: Path) -> None:
    world, _ = left
    for target, why in (
        (f"sqlite:///{tmp_path}/other.db", "no PostgreSQL"),
        ("postgresql://nobody:secret-of-mine@127.0.0.1:1/broker", "database"),
        ("nonsense", "--to"),
    ):
        status, said = await broker(world, "move", "--to", target)
        assert status == 1, said
        assert why in said
        assert "Traceback" not in said
        assert "secret-of-mine" not in said
