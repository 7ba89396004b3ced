"""An answer's head and body go out together, and a head that nothing follows is not kept back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.http.protocol import GuardedProtocol, guarded_protocol
from tests.edge.conftest import Edge

pytestmark = pytest.mark.anyio


class Watched(asyncio.Transport):
    """A connection whose writes are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        """Write it down."""
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return self.is_closed

    def close(self) -> None:
        """Close it."""
        self.is_closed = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep none."""


@pytest.fixture
async def connection(edge: Edge) -> AsyncIterator[tuple[GuardedProtocol, Watched]]:
    """Connect to a server by hand."""
    transport = Watched()
    protocol = guarded_protocol(edge.settings.http)(edge.server.config, edge.server.server_state, {})
    protocol.connection_made(transport)
    yield protocol, transport
    protocol.connection_lost(None)


async def test_head_and_body_are_one_write(connection: tuple[GuardedProtocol, Watched]) -> None:
    protocol, transport = connection
    protocol.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    protocol.transport.write(b"body")
    await asyncio.sleep(0)
    assert transport.written == [b"HTTP/1.1 200 OK\r\n\r\nbody"]


async def test_a_head_alone_goes_out_at_the_next_turn_or_before_the_end(
    connection: tuple[GuardedProtocol, Watched],
) -> None:
    protocol, transport = connection
    protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert transport.written == []
    await asyncio.sleep(0)
    assert transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    protocol.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    protocol.transport.close()
    assert (len(transport.written), transport.is_closed) == (2, True)
