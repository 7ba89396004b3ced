"""A loop that was busy past a client's deadline: what the client sent in time is read before anybody is cut off."""

import asyncio
import socket
import time
from http.client import HTTPResponse

import pytest

from tests.edge.conftest import Edge
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

LIVE = b"GET /livez HTTP/1.1\r\nHost: b\r\n\r\n"
BODY = b'{"provider": "bamboohr"}'
HEAD = b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"


async def send_while_the_loop_is_busy(edge: Edge, client: socket.socket, data: bytes) -> None:
    """Send while the broker's loop serves another socket, from which it returns after every deadline of the edge."""
    http = edge.settings.http
    longest = max(http.header_timeout_seconds, http.body_timeout_seconds, http.keep_alive_seconds)
    ours, theirs = socket.socketpair()
    served = asyncio.Event()

    def serve() -> None:
        loop.remove_reader(theirs)
        client.sendall(data)
        time.sleep(longest + 0.3)
        served.set()

    with ours, theirs:
        loop = asyncio.get_running_loop()
        loop.add_reader(theirs, serve)
        ours.sendall(b"!")
        await served.wait()


async def connect(edge: Edge) -> socket.socket:
    """Connect, and wait until the broker knows of it: its deadline runs."""
    client = socket.create_connection(("127.0.0.1", edge.port), timeout=10)

    async def is_known() -> bool:
        return edge.connections == 1

    await eventually(is_known)
    return client


def status_of(client: socket.socket) -> int:
    """Read one whole answer, which may come in pieces."""
    with HTTPResponse(client) as answer:
        answer.begin()
        answer.read()
        return answer.status


async def test_a_first_request_is_read(edge: Edge) -> None:
    with await connect(edge) as client:
        await send_while_the_loop_is_busy(edge, client, LIVE)
        assert await asyncio.to_thread(status_of, client) == 200


async def test_a_body_is_read(edge: Edge) -> None:
    with await connect(edge) as client:
        client.sendall(HEAD % len(BODY) + edge.as_user() + b"Expect: 100-continue\r\n\r\n")
        # The broker asks for the body: from here on the deadline of the body runs.
        assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 100 ")
        await send_while_the_loop_is_busy(edge, client, BODY)
        assert await asyncio.to_thread(status_of, client) == 201


async def test_the_next_request_of_a_kept_connection_is_read(edge: Edge) -> None:
    with await connect(edge) as client:
        for _ in range(2):
            client.sendall(LIVE)
            assert await asyncio.to_thread(status_of, client) == 200
        await send_while_the_loop_is_busy(edge, client, LIVE)
        assert await asyncio.to_thread(status_of, client) == 200
