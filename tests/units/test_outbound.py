"""How HTTP leaves the broker: certificate authorities of one's own, and proxies."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from app.clock import SystemClock
from app.errors import Unavailable
from app.identity.tokens.key_ring import KeyRing, KeyRingTimes
from app.identity.tokens.oidc import KeyFetcher, open_client
from app.metrics import Metrics
from app.outbound import open_transport
from app.push.sender import NotDelivered, Sender
from app.settings import StackOneSettings, TlsSettings
from app.settings.reach import Places
from app.stackone.client import StackOneClient
from tests.support.certificates import self_signed
from tests.support.tokens import rsa_key

pytestmark = pytest.mark.anyio

HOST = "inside.example.com"


@dataclass
class Proxy:
    """A proxy for CONNECT that leads every tunnel to one port of this machine."""

    port: int = 0
    leads_to: int = 0
    asked: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split()[1])
        self.credentials += [line for line in head.split("\r\n") if line.lower().startswith("proxy-authorization")]
        theirs, ours = await asyncio.open_connection("127.0.0.1", self.leads_to)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pass_on(reader, ours), _pass_on(theirs, writer))


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with closing(target):
        while piece := await source.read(65_536):
            target.write(piece)


@dataclass
class Outside:
    """A server with a certificate that nobody knows, and a proxy."""

    port: int
    certificate: Path
    proxy: Proxy

    def tls(self, **settings: object) -> TlsSettings:
        """Return settings that trust the server."""
        return TlsSettings.model_validate({"ca_file": self.certificate, **settings})


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer):
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"keys": [rsa_key().jwk()], "data": []}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()


@asynccontextmanager
async def opened(tmp_path: Path, host: str) -> AsyncIterator[Outside]:
    certificate = self_signed(tmp_path, host)
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listening.load_cert_chain(certificate)
    proxy = Proxy()
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=listening)
    front = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.leads_to = server.sockets[0].getsockname()[1]
    proxy.port = front.sockets[0].getsockname()[1]
    try:
        yield Outside(proxy.leads_to, certificate, proxy)
    finally:
        server.close()
        front.close()


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Outside]:
    async with opened(tmp_path, "127.0.0.1") as it:
        yield it


async def get(tls: TlsSettings, url: str) -> int:
    async with httpx2.AsyncClient(transport=open_transport(tls, max_connections=2)) as client:
        return (await client.get(url)).status_code


async def list_accounts(outside: Outside, tls: TlsSettings) -> None:
    settings = StackOneSettings(
        api_key=SecretStr("demo-0123456789abcdef"),
        base_url=f"https://127.0.0.1:{outside.port}",
        webhook_secrets=(SecretStr("demo-0123456789abcdef"),),
        max_attempts=1,
    )
    transport = open_transport(tls, max_connections=2)
    client = StackOneClient(settings, clock=SystemClock(), metrics=Metrics(), transport=transport)
    try:
        await client.list_page(page=1, page_size=1)
    finally:
        await client.close()


async def find_key(outside: Outside, tls: TlsSettings) -> None:
    async with open_client(5, open_transport(tls, max_connections=2)) as client:
        uri = f"https://127.0.0.1:{outside.port}/keys"
        fetcher = KeyFetcher(client, timeout_seconds=5)
        ring = KeyRing(
            lambda: fetcher.keys_at(uri),
            issuer="https://login.example",
            algorithms=["RS256"],
            times=KeyRingTimes(cooldown=1, fresh=60, stale=60),
            clock=SystemClock(),
        )
        assert await ring.find("rsa-1", "RS256")


async def deliver(outside: Outside, tls: TlsSettings) -> None:
    sender = Sender(timeout_seconds=5, allow_private=True, tls=tls)
    try:
        await sender.post(f"https://127.0.0.1:{outside.port}/in", b"{}", {})
    finally:
        await sender.close()


@pytest.mark.parametrize(
    ("use", "failure"), [(list_accounts, Unavailable), (find_key, Unavailable), (deliver, NotDelivered)]
)
async def test_an_authority_of_ones_own_is_trusted_by_every_client_and_a_strange_one_is_named(
    use: object, failure: type[Exception], outside: Outside
) -> None:
    assert callable(use)
    await use(outside, outside.tls())
    with pytest.raises(failure) as caught:
        await use(outside, TlsSettings())
    told = getattr(caught.value, "detail", None) or str(caught.value)
    assert "certificate not trusted: self-signed certificate" in told


def test_ssl_cert_file_names_the_authorities_too(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1")
    program = (
        "from app.outbound import _context; from app.settings import TlsSettings;"
        "print(_context(None).cert_store_stats()['x509'])"
    )
    environment = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


async def test_a_proxy_carries_what_no_exception_names(outside: Outside) -> None:
    url, proxy = f"https://127.0.0.1:{outside.port}/", f"http://someone:secret@127.0.0.1:{outside.proxy.port}"
    assert await get(outside.tls(proxy=proxy), url) == 200
    assert outside.proxy.asked == []
    for exceptions in (["10.0.0.0/8"], [".example.com"]):
        assert await get(outside.tls(proxy=proxy, no_proxy=exceptions), url) == 200
    assert outside.proxy.asked == [f"127.0.0.1:{outside.port}"] * 2
    assert len(outside.proxy.credentials) == 2


async def test_push_through_a_proxy_names_the_address_that_was_checked(tmp_path: Path) -> None:
    async def resolver(_host: str, _port: int) -> list[str]:
        return addresses

    async with opened(tmp_path, HOST) as outside:
        proxy = f"http://127.0.0.1:{outside.proxy.port}"
        sender = Sender(
            timeout_seconds=5,
            allow_private=False,
            inside=Places.of(["127.0.0.0/8"]),
            tls=outside.tls(proxy=proxy, no_proxy=["none.example"]),
            resolver=resolver,
        )
        try:
            addresses = ["93.184.216.34"]
            await sender.post(f"https://{HOST}:8443/in", b"{}", {})
            addresses = ["10.0.0.7"]
            with pytest.raises(NotDelivered, match="address_not_public"):
                await sender.post(f"https://{HOST}:8443/in", b"{}", {})
        finally:
            await sender.close()
        assert outside.proxy.asked == ["93.184.216.34:8443"]
