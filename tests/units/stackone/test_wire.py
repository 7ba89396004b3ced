"""What becomes of a request on a bad wire, on raw sockets: what is told of it decides whether it may be sent again."""

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import httpx2
import pytest

from app.errors import tls_failure
from app.settings import TlsSettings
from app.stackone.wire import Wire, meaning_of, open_wire
from tests.support.certificates import self_signed
from tests.support.raw_server import Connection, Script, raw_server

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
# None of them is sent again by the wire, whatever happens; aiohttp would repeat the first two.
METHODS = ("GET", "DELETE", "POST")


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Run on Python's own loop and on the one that production has: they report sockets differently."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def wire_of(connections: int = 10) -> Wire:
    return Wire(ssl.create_default_context(), max_connections=connections)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = wire_of()
    yield made
    await made.aclose()


async def call(
    wire: httpx2.AsyncBaseTransport, url: str, method: str = "GET", *, body: bytes = b"", seconds: float = 5
) -> httpx2.Response:
    """Make one call and read its answer."""
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    headers = {"authorization": "Basic a2V5Og==", "accept": "application/json", "user-agent": "test"}
    request = httpx2.Request(
        method, f"{url}/accounts/1", headers=headers, content=body, extensions={"timeout": timeout}
    )
    response = await wire.handle_async_request(request)
    try:
        await response.aread()
    finally:
        await response.aclose()
    return response


def answering(*pieces: bytes, then_reset: bool = False) -> Script:
    """Answer each connection's first request with these bytes, and hang up."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(*pieces)
        if then_reset:
            connection.reset()

    return script


async def _reset_at_once(connection: Connection) -> None:
    connection.reset()


async def _reset_within_the_request(connection: Connection) -> None:
    await connection.reader.read(1000)
    connection.reset()


async def _hang_up_at_once(_connection: Connection) -> None:
    return


async def _silence(connection: Connection) -> None:
    await connection.read_request()
    await connection.reader.read()


async def _no_tls(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await connection.reader.read()


async def _pause_within_the_body(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")
    await connection.reader.read()


READ_OR_GONE = (httpx2.ReadError, httpx2.RemoteProtocolError)
BROKEN: dict[str, tuple[Script, type[Exception] | tuple[type[Exception], ...]]] = {
    "reset before it was read": (_reset_at_once, httpx2.ReadError),
    "reset while it was read": (_reset_within_the_request, httpx2.ReadError),
    "reset after it was read": (answering(then_reset=True), httpx2.ReadError),
    "reset within the head": (answering(b"HTTP/1.1 200 OK\r\ncontent-le", then_reset=True), READ_OR_GONE),
    "reset within the body": (
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", then_reset=True),
        READ_OR_GONE,
    ),
    "hung up before it was read": (_hang_up_at_once, READ_OR_GONE),
    "hung up after it was read": (answering(), httpx2.RemoteProtocolError),
    "hung up within the head": (answering(b"HTTP/1.1 200 OK\r\nconte"), httpx2.RemoteProtocolError),
    "half an answer by length": (
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
        httpx2.RemoteProtocolError,
    ),
    "half an answer by chunks": (
        answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n"),
        httpx2.RemoteProtocolError,
    ),
    "a chunk of no size": (
        answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
        httpx2.RemoteProtocolError,
    ),
    "no HTTP": (answering(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), httpx2.RemoteProtocolError),
    "no status": (answering(b"HTTP/1.1 two hundred\r\n\r\n"), httpx2.RemoteProtocolError),
    "a header without a name": (
        answering(b"HTTP/1.1 200 OK\r\n: x\r\ncontent-length: 2\r\n\r\n{}"),
        httpx2.RemoteProtocolError,
    ),
    "a length that is none": (
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}"),
        httpx2.RemoteProtocolError,
    ),
    "two lengths": (
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x"),
        httpx2.RemoteProtocolError,
    ),
    "a length beside chunks": (
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        httpx2.RemoteProtocolError,
    ),
    "a header without end": (answering(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000), httpx2.RemoteProtocolError),
    "headers without end": (
        answering(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n"),
        httpx2.RemoteProtocolError,
    ),
    "silence": (_silence, httpx2.ReadTimeout),
    "silence within the body": (_pause_within_the_body, httpx2.ReadTimeout),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_may_have_arrived_is_told_as_such_and_is_not_sent_again(what: str, wire: Wire) -> None:
    script, expected = BROKEN[what]
    seconds = 0.1 if "silence" in what else 5
    body = b"x" * 1_000_000 if "while" in what else b""
    async with raw_server(script) as server:
        for method in METHODS:
            with pytest.raises(expected) as caught:
                await call(wire, server.url, method, body=body if method == "POST" else b"", seconds=seconds)
            assert not isinstance(caught.value, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))
            assert caught.value.request.method == method  # type: ignore[attr-defined]
        assert server.connections == len(METHODS)


@pytest.mark.parametrize("ending", ["reset", "hung up"])
async def test_nothing_is_sent_again_on_a_kept_connection_that_ends(ending: str, wire: Wire) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(OK)
        await connection.read_request()
        if ending == "reset":
            connection.reset()

    async with raw_server(script) as server:
        for method in METHODS:
            assert (await call(wire, server.url)).content == b"{}"
            with pytest.raises(READ_OR_GONE):
                await call(wire, server.url, method)
        assert len(server.arrived) == 2 * len(METHODS) == 2 * server.connections


async def test_a_connection_closed_while_it_was_idle_is_not_used(wire: Wire) -> None:
    async with raw_server(answering(OK)) as server:
        for _ in range(5):
            assert (await call(wire, server.url)).status_code == 200
            # The server hangs up after its answer; what it says is read before the next call.
            await asyncio.sleep(0.01)
        assert server.connections == 5


async def test_what_never_left_is_told_as_such(wire: Wire, tmp_path: Path) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(httpx2.ConnectError):
            await call(wire, f"http://127.0.0.1:{port}", "POST", body=b"{}")
        # Full: the handshake of TCP is not answered any more.
        nobody.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for waiting in filling:
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        with pytest.raises(httpx2.ConnectTimeout):
            await call(wire, f"http://127.0.0.1:{port}", "POST", body=b"{}", seconds=0.2)
        for waiting in filling:
            waiting.close()
    with pytest.raises(httpx2.ConnectError):
        await call(wire, "http://nowhere.invalid", "POST", body=b"{}")
    async with raw_server(_no_tls) as plain:
        with pytest.raises(httpx2.ConnectError) as refused:
            await call(wire, plain.url.replace("http", "https"), "POST", body=b"{}")
        assert tls_failure(refused.value)
        assert plain.arrived == []
    certificate = self_signed(tmp_path, "127.0.0.1")
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listening.load_cert_chain(certificate)
    async with raw_server(answering(OK), tls=listening) as strange:
        with pytest.raises(httpx2.ConnectError) as distrusted:
            await call(wire, strange.url.replace("http", "https"))
        assert tls_failure(distrusted.value) == "certificate not trusted: self-signed certificate"
        assert strange.arrived == []
        trusting = open_wire(TlsSettings(ca_file=certificate), max_connections=1)
        assert (await call(trusting, strange.url.replace("http", "https"))).status_code == 200
        with pytest.raises(httpx2.ConnectError):
            await call(trusting, strange.url.replace("http://127.0.0.1", "https://localhost"))
        await trusting.aclose()


async def test_waiting_for_a_connection_is_not_having_sent() -> None:
    wire = wire_of(connections=1)
    async with raw_server(_silence) as server:
        first = asyncio.create_task(call(wire, server.url))
        await server.has_arrived.wait()
        with pytest.raises(httpx2.ConnectTimeout):
            await call(wire, server.url, "POST", body=b"{}", seconds=0.1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert len(server.arrived) == 1
    await wire.aclose()


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_nobody_asked_for_is_not_read_as_the_next_answer(at_once: bool, wire: Wire) -> None:  # noqa: FBT001
    foreign = b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"id": "x"}'
    sent = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(OK + foreign) if at_once else await connection.send(OK)
        if not at_once:
            await sent.wait()
            await connection.send(foreign)
        await connection.reader.read()

    async with raw_server(script) as server:
        assert (await call(wire, server.url)).content == b"{}"
        sent.set()
        await asyncio.sleep(0.02)
        try:
            assert (await call(wire, server.url)).content == b"{}"
        except httpx2.ConnectError:
            # It was seen before anything left, so it may be repeated, and then has a connection of its own.
            assert (await call(wire, server.url)).content == b"{}"
        assert server.connections == 2


async def test_answers_of_all_lawful_kinds_are_read_and_connections_kept_where_they_may_be(wire: Wire) -> None:
    kinds = {
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}": (200, b"{}"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\nx: y\r\n\r\n": (200, b"{}"),
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}": (200, b"{}"),
        b"HTTP/1.1 204 No Content\r\n\r\n": (204, b""),
        b"HTTP/1.1 201\r\ncontent-length: 0\r\n\r\n": (201, b""),
        b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n": (307, b""),
    }
    queue: list[bytes] = list(kinds)

    async def script(connection: Connection) -> None:
        while queue:
            await connection.read_request()
            await connection.send(queue.pop(0))

    async with raw_server(script) as server:
        for expected in kinds.values():
            response = await call(wire, server.url)
            assert (response.status_code, response.content) == expected
        assert server.connections == 1
    unknown_length = b"HTTP/1.0 200 OK\r\nset-cookie: a=b\r\n\r\n{}"
    async with raw_server(answering(unknown_length)) as server:
        for _ in range(2):
            assert (await call(wire, server.url)).content == b"{}"
        assert not any(b"cookie" in request.lower() for request in server.arrived)


async def test_an_upgrade_that_nobody_asked_for_is_no_answer_to_wait_for(wire: Wire) -> None:
    offer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    async with raw_server(answering(offer)) as server:
        try:
            response = await call(wire, server.url, seconds=1)
        except httpx2.TransportError:
            return
        assert response.status_code == 101


async def test_a_request_goes_out_as_it_was_made(wire: Wire) -> None:
    async with raw_server(answering(OK)) as server:
        url = httpx2.URL(f"{server.url}/accounts/a%2Fb%20c", params={"page": 1, "q": "ä&b"})
        request = httpx2.Request("POST", url, headers={"X-Spelled": "so", "user-agent": "test"}, content=b"{}")
        await (await wire.handle_async_request(request)).aread()
        [arrived] = server.arrived
    head, _, body = arrived.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /accounts/a%2Fb%20c?page=1&q=%C3%A4%26b HTTP/1.1"
    names = sorted(line.partition(b":")[0].lower() for line in lines[1:])
    assert names == [
        b"accept",
        b"accept-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
        b"x-spelled",
    ]
    assert body == b"{}"


def _classes(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for each in base.__subclasses__():
        yield from _classes(each)


def test_no_failure_of_the_carrier_is_without_a_meaning() -> None:
    never_left = {
        aiohttp.ClientConnectorError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.ServerFingerprintMismatch,
    }
    gc.collect()
    for kind in set(_classes(aiohttp.ClientError)):
        meaning = meaning_of(kind.__new__(kind))
        told = issubclass(meaning, (httpx2.ConnectError, httpx2.ConnectTimeout))
        assert told == issubclass(kind, tuple(never_left)), kind


async def test_a_wire_closes_with_calls_under_way() -> None:
    wire = wire_of()
    async with raw_server(_silence) as server:
        running = asyncio.create_task(call(wire, server.url))
        await server.has_arrived.wait()
        await wire.aclose()
        with pytest.raises(READ_OR_GONE):
            await running
    await wire_of().aclose()
