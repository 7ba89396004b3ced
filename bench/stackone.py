"""A StackOne that costs next to nothing, so that what is measured is who calls it.

    python -m bench.stackone PORT DELAY_MS KEYS_FILE

It mints, and shows any account it is asked for; its answers lie ready but for what they must echo. It also publishes
the key set of an issuer, whose tokens the benchmarks sign.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import cast

import httptools
import uvloop

STAMP = "2026-01-01T00:00:00.000Z"
_PATH = re.compile(rb"/accounts/([A-Za-z0-9_-]+)")


def _answer(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def _minted(sent: bytes) -> bytes:
    body = {
        **json.loads(sent),
        "id": "cs_1",
        "organization_id": 1,
        "project_id": "p",
        "created_at": STAMP,
        "token": "t" * 120,
        "auth_link_url": "https://example.invalid/embedded/accounts/direct/t",
    }
    return _answer(b"201 Created", json.dumps(body).encode())


def _account(account_id: str) -> bytes:
    # Ten accounts to an owner, as everything in these benchmarks has them.
    owner = owner_of(account_id)
    body = {
        "id": account_id,
        "provider": "bamboohr",
        "status": "active",
        "origin_owner_id": owner,
        "origin_owner_name": owner.title(),
        "created_at": STAMP,
        "updated_at": STAMP,
    }
    return _answer(b"200 OK", json.dumps(body).encode())


def owner_of(account_id: str) -> str:
    """Return whose an account of these benchmarks is: five to an owner, by the number in its id."""
    digits = re.sub(r"\D", "", account_id) or "0"
    return f"org{int(digits) // 5:07}"


class StackOne(asyncio.Protocol):
    """One connection."""

    keys = b"{}"
    delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._body = b"", b""

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Take the address."""
        self._path, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer, when it is time."""
        answer = self._answer()
        if self.delay and not self._path.startswith(b"/keys"):
            asyncio.get_running_loop().call_later(self.delay, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _answer(self) -> bytes:
        if self._path == b"/connect_sessions":
            return _minted(self._body)
        if found := _PATH.match(self._path):
            return _account(found[1].decode())
        return _answer(b"200 OK", self.keys if self._path == b"/keys" else b"[]")


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(StackOne, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    StackOne.delay = float(sys.argv[2]) / 1000
    StackOne.keys = Path(sys.argv[3]).read_bytes()
    uvloop.run(_serve(int(sys.argv[1])))
