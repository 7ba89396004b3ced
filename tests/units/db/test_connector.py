"""Opening connections, as the pool does it."""

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from app.db.connector import Connector
from tests.support.databases import PostgresqlDatabases, settings_of

pytestmark = pytest.mark.anyio


async def test_an_attempt_that_is_cancelled_leaves_nothing_behind(postgresql_databases: PostgresqlDatabases) -> None:
    # A stop comes at any time, at each turn of the loop while a connection is being opened.
    connector = Connector(settings_of(postgresql_databases.create()), statement_timeout_seconds=60)
    loop = asyncio.get_running_loop()
    unheard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: unheard.append(context))
    for turns in range(12):
        attempt = asyncio.create_task(connector())
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await attempt).terminate()
    gc.collect()
    await asyncio.sleep(0)
    assert unheard == []
