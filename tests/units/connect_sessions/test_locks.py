"""On PostgreSQL whoever counts or pins for an owner waits for whoever does so already; SQLite has one writer anyway."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextvars import Context
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.connect_sessions.ledger import lock_owner
from app.connect_sessions.tables import owners
from app.owners.names import pin_owner
from tests.support.broker import ACME, Broker, open_broker
from tests.support.databases import PostgresqlDatabases

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shared(tmp_path: Path, postgresql_databases: PostgresqlDatabases) -> AsyncIterator[Broker]:
    """Open a broker over PostgreSQL, with a pin for two owners."""
    url = postgresql_databases.create()
    try:
        async with open_broker(tmp_path, database={"url": url}) as opened:
            for owner_id in ("acme", "globex"):
                await opened.has(
                    owners, owner_id=owner_id, owner_name="Old", pinned_at=opened.clock.now(), pinned_by="user:ann"
                )
            yield opened
    finally:
        postgresql_databases.give_back(url)


def _apart(work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    """Run beside the open transaction, as another request would."""
    return asyncio.create_task(work, context=Context())


async def pin(broker: Broker, owner_id: str) -> None:
    await pin_owner(broker.runtime, owner_id, "New", actor="service:ops", dry_run=False)


async def test_postgresql_pins_and_counts_wait_for_the_owners_lock(shared: Broker) -> None:
    async with shared.runtime.database.transaction() as connection:
        await lock_owner(connection, "acme")
        waiting = {_apart(pin(shared, "acme")), _apart(shared.mint(ACME))}
        # Those who ask later for another owner are through: whoever had not to wait would be as well.
        others = [_apart(pin(shared, "globex")), _apart(shared.mint(replace(ACME, owner_id="globex")))]
        await asyncio.wait_for(asyncio.gather(*others), timeout=30)
        assert not any(task.done() for task in waiting)
    done, _ = await asyncio.wait(waiting, timeout=30)

    assert done == waiting
    assert [task.exception() for task in done] == [None, None]
    assert {row["owner_name"] for row in await shared.rows(owners)} == {"New"}
