"""TLS in front of the broker, as a load balancer speaks it: browsers keep `__Host-` cookies for https only."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.certificates import self_signed

_REQUEST = re.compile(rb"(?:^|\n)([A-Z]+) \S+ HTTP/1\.1\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_COOKIE = re.compile(rb"\r\n[Cc]ookie: ")


@dataclass
class Front:
    """The listener, and what went through it."""

    port: int
    asked_bytes: bytearray = field(default_factory=bytearray)
    answered_bytes: bytearray = field(default_factory=bytearray)
    has_answered: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def asked(self) -> list[tuple[str, bool]]:
        """Return the method of each request, and whether it brought a cookie."""
        found = list(_REQUEST.finditer(self.asked_bytes))
        ends = [*(match.start() for match in found[1:]), len(self.asked_bytes)]
        return [
            (match[1].decode(), _COOKIE.search(self.asked_bytes, match.start(), end) is not None)
            for match, end in zip(found, ends, strict=True)
        ]

    @property
    def answered(self) -> list[int]:
        """Return the status of each answer."""
        return [int(status) for status in _STATUS.findall(self.answered_bytes)]

    def note_request(self, block: bytes) -> None:
        """Remember what a browser sent."""
        self.asked_bytes += block

    def note_answer(self, block: bytes) -> None:
        """Remember what the broker sent, which writes the head of an answer in one piece."""
        self.answered_bytes += block
        self.has_answered.set()

    def forget(self) -> None:
        """Start anew."""
        self.asked_bytes.clear()
        self.answered_bytes.clear()
        self.has_answered.clear()


@asynccontextmanager
async def tls_in_front_of(port: int, directory: Path) -> AsyncIterator[Front]:
    """Listen with a certificate of our own, and pass every byte on."""
    front = Front(0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(directory, "127.0.0.1"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            _copy(reader, inner_writer, front.note_request), _copy(inner_reader, writer, front.note_answer)
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        front.port = server.sockets[0].getsockname()[1]
        yield front
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None]) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while block := await reader.read(65536):
            note(block)
            writer.write(block)
            await writer.drain()
    writer.close()
