"""A TCP proxy before PostgreSQL that counts how often its clients wait for an answer."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

_TLS_REQUESTS = (80877103, 80877104)  # SSLRequest and GSSENCRequest: refused, so that what follows can be read
_PORT = 5432
_FLUSHES = frozenset(b"QSHF")  # Query, Sync, Flush, FunctionCall: after these a client waits
_FLUSH = ord("H")
_READY = ord("Z")


class _Messages:
    """Cuts a stream of one direction into the types of its messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[int]:
        self._data += data
        types = []
        while len(self._data) >= 5:
            (length,) = struct.unpack_from("!I", self._data, 1)
            if len(self._data) < 1 + length:
                break
            types.append(self._data[0])
            del self._data[: 1 + length]
        return types


@dataclass
class CountingProxy:
    """Counts waits: a flush by the client begins one, ReadyForQuery ends it; what is pipelined waits once."""

    waits: int = 0
    connections: int = 0
    url: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, target: str) -> asyncio.Server:
        """Listen for clients of a PostgreSQL database's URL."""
        parts = urlsplit(target)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await self._carry(reader, writer, target)
            finally:
                self._tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user = f"{parts.netloc.rpartition('@')[0] or 'postgres'}@"
        self.url = parts._replace(netloc=f"{user}127.0.0.1:{port}", query="").geturl()
        return server

    async def close(self, server: asyncio.Server) -> None:
        """Hang up on everybody."""
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
        startup = await _startup(reader, writer)
        far_reader, far_writer = await _connect(target)
        self.connections += 1
        far_writer.write(startup)
        waiting = by_flush = False

        async def to_server() -> None:
            nonlocal waiting, by_flush
            messages = _Messages()
            while data := await reader.read(65536):
                sent = messages.feed(data)
                if not waiting and not _FLUSHES.isdisjoint(sent):  # what is pipelined waits once
                    waiting = True
                    self.waits += 1
                    # Flush alone, as a driver sends it to prepare a statement, is answered without ReadyForQuery.
                    by_flush = sent[-1] == _FLUSH
                far_writer.write(data)
                await far_writer.drain()

        async def to_client() -> None:
            nonlocal waiting
            messages = _Messages()
            while data := await far_reader.read(65536):
                received = messages.feed(data)
                if _READY in received or (by_flush and received):
                    waiting = False
                writer.write(data)
                await writer.drain()

        directions = [asyncio.create_task(to_server()), asyncio.create_task(to_client())]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            far_writer.close()


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code not in _TLS_REQUESTS:
            return head + await reader.readexactly(length - 8)
        writer.write(b"N")


async def _connect(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(target)
    port = parts.port or _PORT
    if folder := parse_qs(parts.query).get("host"):
        return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{port}")
    return await asyncio.open_connection(parts.hostname, port)


@contextlib.asynccontextmanager
async def counting(target: str) -> AsyncIterator[CountingProxy]:
    """Count what goes to a database while the block runs; connect to the proxy's `url` instead of the target."""
    proxy = CountingProxy()
    server = await proxy.serve(target)
    try:
        yield proxy
    finally:
        await proxy.close(server)
