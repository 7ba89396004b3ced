"""Clients that send and never read, pipeline without end, or hold connections: others are served meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.edge.conftest import Edge, open_edge, statuses
from tests.support.databases import SqliteDatabases
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

MOST = 30
LIVE = b"GET /livez HTTP/1.1\r\nHost: b\r\n\r\n"
LIVE_AND_CLOSE = b"GET /livez HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"
LISTED = b"GET /v1/linked-accounts HTTP/1.1\r\nHost: b\r\nConnection: close\r\n"


@pytest.fixture
async def small(sqlite_databases: SqliteDatabases) -> AsyncIterator[Edge]:
    """Serve a broker that holds few connections, and waits for little."""
    http = {"max_connections": MOST, "write_timeout_seconds": 0.4, "header_timeout_seconds": 5}
    async with open_edge(sqlite_databases.create(), http=http) as edge:
        yield edge


async def test_who_never_reads_is_cut_off(small: Edge) -> None:
    async with AsyncExitStack() as stack:
        writers = [(await stack.enter_async_context(small.connected()))[1] for _ in range(MOST)]

        async def are_gone() -> bool:
            for writer in writers:
                if not writer.transport.is_closing() and writer.transport.get_write_buffer_size() == 0:
                    writer.write(LIVE * 15)
            return small.connections < MOST // 2

        await eventually(are_gone, within=15)
    assert statuses(await small.send(LISTED + small.as_user() + b"\r\n")) == [200]


async def test_pipelined_requests_are_bounded(small: Edge) -> None:
    received = await small.send(LIVE * 5 + LIVE_AND_CLOSE)
    assert statuses(received) == [200] * 6
    assert len(statuses(await small.send(LIVE * 500, finish=False, within=2))) < 100


async def test_health_has_a_reserve_that_serves_nothing_else(small: Edge) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            _reader, writer = await stack.enter_async_context(small.connected())
            writer.write(LIVE)
        await eventually(lambda: _holds(small, MOST), within=5)
        assert statuses(await small.send(LIVE_AND_CLOSE)) == [200]
        ready = LIVE_AND_CLOSE.replace(b"/livez", b"/readyz?probe=1")
        assert statuses(await small.send(ready)) == [200]
        assert statuses(await small.send(LISTED + small.as_user() + b"\r\n")) == [503]


async def _holds(edge: Edge, connections: int) -> bool:
    return edge.connections >= connections


async def test_one_address_may_not_hold_everything_without_sending(sqlite_databases: SqliteDatabases) -> None:
    http = {"max_connections": 200, "header_timeout_seconds": 5}
    async with open_edge(sqlite_databases.create(), http=http) as edge, AsyncExitStack() as stack:
        for _ in range(120):
            await stack.enter_async_context(edge.connected())
        # A quarter of all connections may be silent ones of one address; those beyond it were turned away at once.
        await asyncio.sleep(0.2)
        assert edge.connections <= 52
