"""Upgrading: the last release serves on the new schema, and the new code waits for a schema that is not there yet."""

import asyncio
import base64
import hmac
import json
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import httpx2
import pytest
from alembic import command

from app.db.schema_version import MIGRATIONS, Fit, alembic_config, known_revisions
from tests.support.databases import PostgresqlDatabases, SqliteDatabases, settings_of
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.wires import PlainWire
from tests.support.world import WEBHOOK_SECRET, World, open_world

pytestmark = pytest.mark.anyio

ROOT = MIGRATIONS.parent
_REQUESTS = 150


def last_release(directory: Path) -> str:
    """Put the code of the last release into a folder; return its commit."""
    commit = (MIGRATIONS / "LAST_RELEASE").read_text(encoding="utf-8").strip()
    archive = subprocess.run(
        ["git", "archive", commit, "app", "migrations"], cwd=ROOT, capture_output=True, check=False
    )
    assert archive.returncode == 0, f"this clone lacks {commit}, whose code has to serve: git fetch --unshallow"
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tree:
        tree.extractall(directory, filter="data")
    return commit


def written(log: Path) -> str:
    return log.read_text(encoding="utf-8")


@asynccontextmanager
async def serving_code_of(
    directory: Path, world: World, *, log: Path, **settings: str
) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the broker whose code is in a folder, on the world's database."""
    known = {name: value for name, value in environment_of(world).items() if name != "BROKER_HTTP__DRAIN_SECONDS"}
    # The last release knows no draining, and refuses a setting that it does not know.
    environment = {**known, "BROKER_HTTP__PORT": "0", "BROKER_METRICS__PORT": "null", **settings}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "serve", cwd=directory, env=environment, stdout=output, stderr=output
        )
    try:
        port = ""

        async def listens() -> bool:
            nonlocal port
            assert process.returncode is None, written(log)
            _, found, after = written(log).partition("Uvicorn running on http://127.0.0.1:")
            port = after.partition(" ")[0]
            return bool(found)

        await eventually(listens, within=20)
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, transport=PlainWire(), timeout=10) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()
    assert "Traceback" not in written(log)


async def test_the_last_release_serves_on_the_new_schema(database_url: str, tmp_path: Path) -> None:
    last_release(tmp_path)
    async with open_world(database_url, sync={"enabled": False}) as world:
        account_id = await world.link()
        async with serving_code_of(tmp_path, world, log=tmp_path / "log") as broker:
            ready = await broker.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]["database"]) == (200, "ok"), ready.text
            confirmed = await broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user())
            assert confirmed.status_code == 200

            async def ask(number: int) -> int:
                if number % 3:
                    return (await broker.get("/v1/linked-accounts", headers=world.as_user())).status_code
                body = {"provider": "workday"}
                return (await broker.post("/v1/connect-sessions", json=body, headers=world.as_user("bob"))).status_code

            gate = asyncio.Semaphore(8)

            async def gated(number: int) -> int:
                async with gate:
                    return await ask(number)

            statuses = await asyncio.gather(*(gated(number) for number in range(_REQUESTS)))
            # The limit of sessions a minute is part of what it serves.
            assert set(statuses) <= {200, 201, 429}
            assert statuses.count(200) + statuses.count(201) > _REQUESTS * 2 / 3


@pytest.fixture(params=["sqlite", "postgresql"])
def old_schema_url(
    request: pytest.FixtureRequest, tmp_path: Path, postgresql_databases: PostgresqlDatabases
) -> Iterator[str]:
    """Make a database that lacks the newest migration."""
    before = known_revisions()[-2]
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'old.db'}"
        command.upgrade(alembic_config(settings_of(url)), before)
        yield url
        return
    with postgresql_databases.empty() as url:
        command.upgrade(alembic_config(settings_of(url)), before)
        yield url


async def test_new_code_waits_for_its_schema(
    old_schema_url: str, sqlite_databases: SqliteDatabases, tmp_path: Path
) -> None:
    async with open_world(sqlite_databases.create(), webhooks=False, sync={"enabled": False}) as world:
        environment = {"BROKER_DATABASE__URL": old_schema_url}
        async with serving_code_of(ROOT, world, log=tmp_path / "log", **environment) as broker:
            waiting = await broker.get("/readyz")
            assert (waiting.status_code, waiting.json()["checks"]["schema"]) == (503, Fit.BEHIND.value)
            await asyncio.to_thread(command.upgrade, alembic_config(settings_of(old_schema_url)), "head")
            assert (await broker.get("/readyz")).status_code == 200
            # The jobs have begun too: an event that comes now is followed up.
            account_id = await world.link()
            assert (await deliver(broker, account_id)).status_code == 200

            async def known() -> bool:
                listed = await broker.get("/v1/linked-accounts", headers=world.as_user())
                return [account["account_id"] for account in listed.json()["data"]] == [account_id]

            await eventually(known, within=10)


async def deliver(broker: httpx2.AsyncClient, account_id: str) -> httpx2.Response:
    """Deliver a signed event about an account."""
    body = json.dumps({"event": "account.created", "account_id": account_id}).encode()
    digest = hmac.digest(WEBHOOK_SECRET.encode(), body, "sha256")
    signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return await broker.post("/v1/webhooks/stackone", content=body, headers={"x-stackone-signature": signature})
