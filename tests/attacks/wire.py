"""Requests as bytes on a socket: what a decent HTTP client would correct or refuse to send."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.world import World


@dataclass(frozen=True)
class RawAnswer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


async def send_raw(
    world: World,
    target: bytes | str,
    *,
    method: bytes | str = b"GET",
    headers: Sequence[tuple[bytes | str, bytes | str]] = (),
    body: bytes = b"",
) -> RawAnswer:
    """Send one request as it is spelled, and read until the broker closes the connection."""
    address = urlsplit(str(world.broker.base_url))
    lines = [b"%b %b HTTP/1.1" % (_bytes(method), _bytes(target)), b"Host: %b" % address.netloc.encode()]
    lines += [b"%b: %b" % (_bytes(name), _bytes(value)) for name, value in headers]
    lines += [b"Content-Length: %d" % len(body)] if body else []
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        return _parsed(await asyncio.wait_for(reader.read(), 10))
    finally:
        writer.close()


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def _parsed(answer: bytes) -> RawAnswer:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return RawAnswer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, body)
