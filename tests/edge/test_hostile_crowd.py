"""Three hundred hostile clients while eight good ones work: the good lose nothing, and nobody gets a 500.

What each hostile client does is drawn from its own number, so that a failure names one that can be tried alone.
"""

import asyncio
import contextlib
import gc
import logging
import random
import socket
import struct
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest
from structlog.testing import capture_logs

from tests.edge.conftest import Edge, open_edge, statuses
from tests.support.databases import SqliteDatabases

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

HOSTILE = 300
AT_ONCE = 40
GOOD = 8
# What one connection may hold is bounded (docs/operations.md); everything else here is Python's own.
MOST_MEMORY = 48 * 1024 * 1024
# As long as a slow machine needs for an answer; then no more than it takes to see whether another one comes.
PATIENCE = 15
A_MOMENT = 1.25
MINT = b'{"provider": "bamboohr"}'
BODY = b"%s /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    b"GET /livez\r\n\r\n",
    b"GET /livez HTTP/9.9\r\nHost: b\r\n\r\n",
    b"\x00" * 5000,
    b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"GET /livez HTTP/1.1\r\nHost: b\r\n folded: yes\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"\xff\xfe" + "GET /livez HTTP/1.1\r\n\r\n".encode("utf-16-le"),
)
UPGRADES = (b"h2c", b"websocket", b"TLS/1.0", b"h2c, websocket", b"HTTP/3.0", b"\x00", b"foo/2")


def requests_of(edge: Edge, chance: random.Random) -> list[bytes]:
    """Return whole requests, signed and unsigned, with and without a body."""
    user = edge.as_user() if chance.random() < 0.6 else b"Authorization: Bearer nonsense\r\n"
    return [
        b"GET /v1/linked-accounts HTTP/1.1\r\nHost: b\r\n" + user + b"\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: b\r\n\r\n",
        BODY % (b"POST", len(MINT)) + user + b"\r\n" + MINT,
        b"GET /v1/connect-sessions/cs_none HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n" + user + b"\r\n",
        (
            b"POST /v1/webhooks/stackone HTTP/1.1\r\nHost: b\r\nX-StackOne-Signature: AAAA\r\nContent-Length: 9\r\n\r\n"
            b'{"a": 1}\n'
        ),
        b"DELETE /v1/linked-accounts/acc_1 HTTP/1.1\r\nHost: b\r\n" + user + b"\r\n",
    ]


class Hostile:
    """One connection of somebody who means no good, from an address of the crowd's own."""

    def __init__(self, edge: Edge, number: int) -> None:
        """`number` decides everything that it does."""
        self.edge = edge
        self.number = number
        self.chance = random.Random(number)  # noqa: S311  to be repeatable is the point

    async def live(self) -> bytes:
        """Do harm, within bounds; return what came back."""
        source = (f"127.0.1.{self.number % 200 + 1}", 0)
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.edge.port, local_addr=source, limit=2**14
                )
        except (OSError, TimeoutError):
            return b""
        received = b""
        try:
            async with asyncio.timeout(PATIENCE):
                received = await self.deeds()[self.number % len(self.deeds())](reader, writer)
        except (ConnectionError, TimeoutError, RuntimeError):
            # The loop's own transport raises RuntimeError to whoever writes after the broker has hung up.
            pass
        finally:
            if self.chance.random() < 0.5:
                # A reset instead of a goodbye.
                with contextlib.suppress(OSError, AttributeError, RuntimeError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
            writer.transport.abort() if self.chance.random() < 0.5 else writer.close()
        return received

    def deeds(self) -> tuple[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]], ...]:
        """List what it can do."""
        return (
            self.cut,
            self.drip,
            self.never_read,
            self.pipeline,
            self.upgrade,
            self.flood,
            self.half_close,
            self.talk_nonsense,
            self.leave_in_the_answer,
            self.announce_and_stay_silent,
        )

    def one(self) -> bytes:
        """Return a request."""
        return self.chance.choice(requests_of(self.edge, self.chance))

    async def cut(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Stop in the middle of a request."""
        request = self.one()
        writer.write(request[: self.chance.randrange(1, len(request))])
        await writer.drain()
        await asyncio.sleep(self.chance.choice((0, 0.01, 0.1)))
        return b""

    async def drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Send one byte at a time."""
        for byte in self.one():
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.03)
        return await reader.read(65536)

    async def never_read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Ask and ask, and read nothing."""
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001
        for _ in range(200):
            writer.write(self.one())
            await writer.drain()
        await asyncio.sleep(2 * A_MOMENT)
        return b""

    async def pipeline(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Send many requests at once."""
        writer.write(b"".join(self.one() for _ in range(self.chance.randrange(2, 120))))
        return await self._read_all(reader)

    async def upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Offer another protocol with a request, its body and another request behind it."""
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
        head, _, body = self.one().partition(b"\r\n\r\n")
        request = head + b"\r\n" + offer % self.chance.choice(UPGRADES) + b"\r\n" + body
        at = self.chance.randrange(1, len(request))
        writer.write(request[:at])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(request[at:] + self.one())
        return await self._read_all(reader)

    async def flood(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Send more than anybody needs, in one place or another."""
        big = b"A" * 300_000
        request = self.chance.choice(
            (
                b"GET /%s HTTP/1.1\r\nHost: b\r\n\r\n" % big,
                b"GET /livez HTTP/1.1\r\nHost: b\r\nX-Big: %s\r\n\r\n" % big,
                b"GET /livez HTTP/1.1\r\nHost: b\r\n" + b"X-H: 1\r\n" * 20_000 + b"\r\n",
                BODY % (b"POST", 50_000_000) + self.edge.as_user() + b"\r\n" + big,
                b"POST /v1/webhooks/stackone HTTP/1.1\r\nHost: b\r\nX-StackOne-Signature: A\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nA\r\n" * 50_000,
                BODY % (b"POST", 2**70) + b"\r\n" + big,
            )
        )
        writer.write(request)
        return await self._read_all(reader)

    async def half_close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Say goodbye before the answer, in the middle of a request or after it."""
        request = self.one()
        writer.write(request[: self.chance.randrange(1, len(request) + 1)])
        writer.write_eof()
        return await self._read_all(reader)

    async def talk_nonsense(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Speak another language, or HTTP with mistakes."""
        writer.write(self.chance.choice((*GARBAGE, self.chance.randbytes(2000))))
        return await self._read_all(reader)

    async def leave_in_the_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Go as soon as the first bytes come."""
        writer.write(self.one())
        return await reader.read(self.chance.randrange(1, 40))

    async def announce_and_stay_silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Promise a body that does not come."""
        writer.write(BODY % (b"POST", 1000) + self.edge.as_user() + b"Expect: 100-continue\r\n\r\n")
        return await self._read_all(reader)

    async def _read_all(self, reader: asyncio.StreamReader) -> bytes:
        received = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while block := await asyncio.wait_for(reader.read(65536), A_MOMENT if received else PATIENCE):
                received += block
        return received


@pytest.fixture
async def edge(sqlite_databases: SqliteDatabases) -> AsyncIterator[Edge]:
    """Serve a broker with short deadlines and few places."""
    http = {
        # Room for the crowd, for those of it that are being closed on a slow machine, and for the good.
        "max_connections": 160,
        "header_timeout_seconds": 0.8,
        "body_timeout_seconds": 0.8,
        "write_timeout_seconds": 0.8,
        "keep_alive_seconds": 5,
    }
    plenty = "1000000/minute"
    limits = {
        **dict.fromkeys(("requests_per_user", "requests_per_owner", "mint_per_user", "mint_per_owner"), plenty),
        "live_sessions_per_owner": 1_000_000,
    }
    # The crowd mints as well, through one connection: on a slow machine the good wait longer than a person would.
    database = {"pool_timeout_seconds": 60}
    stackone = {"requests_per_minute": 100_000}
    async with open_edge(
        sqlite_databases.create(), http=http, limits=limits, database=database, stackone=stackone
    ) as opened:
        yield opened


async def _work(edge: Edge, token: str, done: threading.Event, lost: Counter[str]) -> int:
    """Be a good client until the others are gone; return how much was done."""
    headers = {"authorization": f"Bearer {token}"}
    served = 0
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", headers=headers, timeout=60) as http:
        while not done.is_set():
            for method, path, body, status in (
                ("GET", "/v1/linked-accounts", None, 200),
                ("POST", "/v1/connect-sessions", {"provider": "bamboohr"}, 201),
                ("GET", "/livez", None, 200),
            ):
                try:
                    answer = await http.request(method, path, json=body)
                except httpx2.HTTPError as error:
                    lost[f"{method} {path}: {error!r}"] += 1
                    continue
                if answer.status_code == status:
                    served += 1
                else:
                    lost[f"{method} {path}: {answer.status_code} {answer.text}"] += 1
    return served


def _work_together(edge: Edge, token: str, done: threading.Event, lost: Counter[str]) -> list[int]:
    """Run the good clients on a loop of their own: what the crowd costs the broker's loop must not make them slow."""

    async def work() -> list[int]:
        return await asyncio.gather(*(_work(edge, token, done, lost) for _ in range(GOOD)))

    return asyncio.run(work())


async def test_three_hundred_hostile_clients_cost_eight_good_ones_nothing(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    done, lost = threading.Event(), Counter[str]()
    places = asyncio.Semaphore(AT_ONCE)

    async def come(number: int) -> bytes:
        async with places:
            return await Hostile(edge, number).live()

    gc.collect()
    tracemalloc.start()
    try:
        with capture_logs() as logs:
            good = asyncio.create_task(asyncio.to_thread(_work_together, edge, edge.issuer.token(), done, lost))
            try:
                answers = await asyncio.gather(*(come(number) for number in range(HOSTILE)))
            finally:
                done.set()
                served = await good
        gc.collect()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lost == {}
    assert min(served) >= 3, served
    broken = {number: set(statuses(received)) for number, received in enumerate(answers) if received}
    assert [number for number, found in broken.items() if 500 in found] == []
    # It was a crowd that got answers, and not one that could not come in.
    assert len({status for found in broken.values() for status in found}) >= 5
    assert [entry for entry in logs if entry["log_level"] in {"error", "critical"}] == []
    # The server's own log as well: that is where an exception of the application ends.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert peak < MOST_MEMORY, f"{peak / 2**20:.0f} MiB"
