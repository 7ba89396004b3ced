"""A server without manners: what each connection gets is written by hand, byte by byte."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ssl import SSLContext


@dataclass
class Connection:
    """One connection, seen from the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: "RawServer"

    async def read_request(self) -> None:
        """Read one request to its end; a client that leaves before that ends the connection's script."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
        )
        self.server.arrived.append(head + await self.reader.readexactly(length))
        self.server.has_arrived.set()

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, one after another."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        ours: socket.socket = self.writer.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class RawServer:
    """Where it listens, and which requests were read whole."""

    port: int = 0
    arrived: list[bytes] = field(default_factory=list)
    has_arrived: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_server(script: Script, *, tls: SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Serve each connection by the script; what still runs at the end of the block is stopped."""
    serving: set[asyncio.Task[None]] = set()
    listening = RawServer()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        listening.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await script(Connection(reader, writer, listening))
        except asyncio.CancelledError:
            # The end of the test, and of no interest to the server's own callback.
            pass
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    listening.port = server.sockets[0].getsockname()[1]
    try:
        yield listening
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
