"""The broker as `broker serve` runs it, reached over raw sockets."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from app.http.server import server_config
from app.main import create_app
from app.runtime import Externals
from app.settings import Settings
from tests.support.tokens import Issuer, StoppedClock
from tests.support.world import settings_for

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on the loop that production runs on."""
    return "asyncio", {"use_uvloop": True}


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class Edge:
    """A broker on a loopback port."""

    port: int
    server: uvicorn.Server
    web: FastAPI
    issuer: Issuer
    settings: Settings
    sent_upstream: list[httpx2.Request]

    @property
    def connections(self) -> int:
        """Return how many connections the server holds."""
        return len(self.server.server_state.connections)

    def as_user(self) -> bytes:
        """Return the header line of a signed-in user."""
        return b"Authorization: Bearer %s\r\n" % self.issuer.token().encode()

    async def send(self, *pieces: bytes, within: float = 5, finish: bool = True) -> bytes:
        """Send pieces one by one and return everything that came back until the broker hung up.

        Without `finish` a silent broker is waited for no longer than `within` seconds; with it that is an error.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = b""
        try:
            async with asyncio.timeout(within):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                while block := await reader.read(65536):
                    received += block
        except (ConnectionError, TimeoutError) as error:
            if finish and isinstance(error, TimeoutError):
                raise
        finally:
            writer.close()
        return received

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open a connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()


def statuses(received: bytes) -> list[int]:
    """Return the status of each answer in a stream."""
    return [int(status) for status in _STATUS.findall(received)]


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer of a connection that stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    assert length is not None
    return head + await reader.readexactly(int(length[1]))


@asynccontextmanager
async def open_edge(
    database_url: str, *, trusting: Mapping[str, Any] | None = None, **sections: Any
) -> AsyncIterator[Edge]:
    """Serve a broker with the real server's settings until the end of the block; `trusting` changes its issuer's."""
    clock = StoppedClock()
    issuer = Issuer(clock, secret="demo-" + "s" * 40)
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        body = {"id": 1, "token": "t", "auth_link_url": "https://app.example.test"}
        return httpx2.Response(201, json=body)

    settings = settings_for(
        database_url=database_url,
        stackone_url="http://127.0.0.1:1",
        issuer=issuer.url,
        **{
            **sections,
            "identity": {"issuers": [issuer.settings(**(trusting or {})).model_dump()]},
            "sync": {"enabled": False},
            "http": {"docs": False, **sections.get("http", {})},
        },
    )
    web = create_app(settings, Externals(clock=clock, stackone_transport=httpx2.MockTransport(answer)))
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    config = server_config(web, settings.http)
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[bound]))
    up = asyncio.create_task(server.up.wait())
    await asyncio.wait({running, up}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield Edge(bound.getsockname()[1], server, web, issuer, settings, sent)
    finally:
        up.cancel()
        server.should_exit = True
        await running


@pytest.fixture
async def edge(database_url: str) -> AsyncIterator[Edge]:
    """Serve a broker with short deadlines."""
    limits = {"header_timeout_seconds": 0.6, "body_timeout_seconds": 0.6, "keep_alive_seconds": 1}
    async with open_edge(database_url, http={**limits, "shutdown_seconds": 1}) as opened:
        yield opened
