"""How much and how slowly a client may send: over raw sockets, against the server as production runs it."""

import asyncio
import contextlib
import gc
import json
import re

import pytest

from app.http.middleware import SECURITY_HEADERS
from app.http.protocol import GuardedProtocol
from tests.edge.conftest import Edge, open_edge, read_answer, statuses
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

LIVE = b"GET /livez HTTP/1.1\r\nHost: b\r\n\r\n"
LIVE_AND_CLOSE = b"GET /livez HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"
POST = b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"


def is_problem(received: bytes, status: int, code: str) -> None:
    """Check that a raw answer is a problem with all the headers that every answer has."""
    assert statuses(received) == [status]
    head, _, body = received.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert lines[b"content-type"] == b"application/problem+json"
    assert lines[b"cache-control"] == b"no-store"
    for name in SECURITY_HEADERS:
        assert name.encode() in lines
    assert int(lines[b"content-length"]) == len(body)
    assert (json.loads(body)["status"], json.loads(body)["code"]) == (status, code)


async def test_an_idle_new_connection_is_closed_without_a_word(edge: Edge) -> None:
    assert await edge.send(within=3) == b""


@pytest.mark.parametrize("head", [b"G", b"GET /livez HTTP/1.1\r\n", LIVE[:-2], POST + b"Content-Length: 10\r\n"])
async def test_half_a_head_has_a_deadline(edge: Edge, head: bytes) -> None:
    is_problem(await edge.send(head, within=3), 408, "request_timeout")


async def test_a_head_that_trickles_has_the_same_deadline(edge: Edge) -> None:
    async with edge.connected() as (reader, writer), asyncio.timeout(4):
        reading = asyncio.create_task(reader.read())
        for byte in LIVE[:-1]:
            if reading.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait({reading}, timeout=0.1)
        # A byte that arrives after the end may have the connection reset in the answer's place.
        with contextlib.suppress(ConnectionResetError):
            is_problem(await reading, 408, "request_timeout")


@pytest.mark.parametrize(
    "body", [b"Content-Length: 10\r\n\r\n", b"Content-Length: 10\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"]
)
async def test_half_a_body_has_a_deadline(edge: Edge, body: bytes) -> None:
    is_problem(await edge.send(POST + edge.as_user() + body, within=3), 408, "request_timeout")
    assert edge.sent_upstream == []


async def test_a_body_that_trickles_has_a_deadline(edge: Edge) -> None:
    async with edge.connected() as (reader, writer), asyncio.timeout(4):
        reading = asyncio.create_task(reader.read())
        writer.write(CHUNKED + edge.as_user() + b"\r\n")
        while not reading.done():
            writer.write(b"1\r\n \r\n")
            await asyncio.wait({reading}, timeout=0.1)
        with contextlib.suppress(ConnectionResetError):
            is_problem(await reading, 408, "request_timeout")


async def test_line_breaks_do_not_keep_a_connection_alive(edge: Edge) -> None:
    async with edge.connected() as (reader, writer), asyncio.timeout(5):
        writer.write(LIVE)
        assert statuses(await read_answer(reader)) == [200]
        reading = asyncio.create_task(reader.read())
        while not reading.done():
            writer.write(b"\r\n")
            await asyncio.wait({reading}, timeout=0.1)
        # A line break that crosses the end of the connection is answered by a reset.
        with contextlib.suppress(ConnectionResetError):
            assert statuses(await reading) == []


async def test_a_head_may_be_as_large_as_the_limit_and_no_larger(database_url: str) -> None:
    async with open_edge(database_url, http={"max_header_bytes": 4096}) as edge:
        rest = len(LIVE_AND_CLOSE) + len(b"X: \r\n")
        for size, expected in ((4096, 200), (4097, 431), (9000, 431)):
            head = LIVE_AND_CLOSE[:-2] + b"X: " + b"x" * (size - rest) + b"\r\n\r\n"
            assert len(head) == size
            assert statuses(await edge.send(head)) == [expected]
            # Byte by byte it is the same.
            half = len(head) // 2
            assert statuses(await edge.send(head[:half], head[half:])) == [expected]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 20_000,
        b"GET /livez HTTP/1.1\r\nX: " + b"a" * 20_000,
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(3000)),
        b"GET /livez HTTP/1.1\r\n" + b"x" * 20_000,
    ],
)
async def test_a_head_that_never_ends_is_cut_off(edge: Edge, head: bytes) -> None:
    is_problem(await edge.send(head), 431, "head_too_large")


async def test_five_megabytes_of_head_are_not_read(edge: Edge) -> None:
    received = await edge.send(b"GET /livez HTTP/1.1\r\nX: ", *[b"a" * 65_536] * 80, b"\r\n\r\n")
    # Who goes on sending after the answer may see the connection reset in its place.
    assert statuses(received) in ([431], [])


async def test_bodies_do_not_count_as_head(edge: Edge) -> None:
    body = b'{"label": "%s"}' % (b"x" * 40_000)
    head = POST + edge.as_user() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert statuses(await edge.send(head + body)) == [422]
    chunked = CHUNKED + edge.as_user() + b"Connection: close\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert statuses(await edge.send(chunked)) == [422]
    # Byte-sized chunks are legal, and so is a pipelined request behind a body in the same segment.
    tiny = b"".join(b"1\r\n%c\r\n" % byte for byte in b"{}") + b"0\r\n\r\n"
    assert statuses(await edge.send(CHUNKED + edge.as_user() + b"\r\n" + tiny + LIVE_AND_CLOSE)) == [201, 200]


@pytest.mark.parametrize("size", [17_000, 25_000, 40_000])
async def test_a_pipelined_head_is_limited_too(edge: Edge, size: int) -> None:
    large = b"GET /livez HTTP/1.1\r\nHost: b\r\nX: " + b"a" * size + b"\r\n\r\n"
    assert statuses(await edge.send(LIVE + large)) == [200]


@pytest.mark.parametrize(
    "tail",
    [b"0\r\n" + b"X-Trailer: " + b"a" * 200_000, b"1;ext=" + b"a" * 200_000, b"0\r\n" + b"X: y\r\n" * 30_000],
    ids=["trailer", "extension", "trailers"],
)
async def test_framing_without_a_body_is_limited(edge: Edge, tail: bytes) -> None:
    received = await edge.send(CHUNKED + edge.as_user() + b"\r\n" + tail, within=3)
    assert statuses(received) in ([400], [408], [431], [])
    assert edge.sent_upstream == []


async def test_a_trailer_is_not_kept_however_long_it_is(database_url: str) -> None:
    async with open_edge(database_url, http={"body_timeout_seconds": 60}) as edge:
        for tail in (b"0\r\nX: " + b"a" * 40_000, b"0\r\n" + b"X: y\r\n" * 6000, b"2\r\n{}\r\n0\r\n" + b"x" * 40_000):
            is_problem(await edge.send(CHUNKED + edge.as_user() + b"\r\n" + tail), 431, "head_too_large")
        assert edge.sent_upstream == []


async def test_heads_that_wait_behind_another_are_limited_all_together(edge: Edge) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: b\r\nX: " + b"a" * 3000 + b"\r\n\r\n"
    assert 1 <= len(statuses(await edge.send(head * 15))) <= 11


@pytest.mark.parametrize("rest", [b"", b"zz\r\n", b"0\r\n" + b"X" * 20_000], ids=["nothing", "nonsense", "too much"])
async def test_a_request_is_answered_once_whatever_becomes_of_its_body(edge: Edge, rest: bytes) -> None:
    refused = CHUNKED.replace(b"/v1/connect-sessions", b"/v1/webhooks/stackone") + b"\r\n"
    async with edge.connected() as (reader, writer), asyncio.timeout(5):
        writer.write(refused)
        assert statuses(await read_answer(reader)) == [401]
        writer.write(rest)
        assert await reader.read() == b""


async def test_trailers_become_no_headers(edge: Edge) -> None:
    trailer = edge.as_user()
    received = await edge.send(CHUNKED + b"Connection: close\r\n\r\n2\r\n{}\r\n0\r\n" + trailer + b"\r\n")
    assert statuses(received) == [401]
    assert edge.sent_upstream == []


async def test_a_kept_connection_serves_requests_and_then_idles_out(edge: Edge) -> None:
    async with edge.connected() as (reader, writer), asyncio.timeout(5):
        for _ in range(3):
            writer.write(LIVE)
            assert statuses(await read_answer(reader)) == [200]
        assert await reader.read() == b""


async def test_a_slow_app_is_not_a_slow_client(edge: Edge) -> None:
    # The deadlines end with the request: while the app works, none runs.
    async with edge.connected() as (reader, writer), asyncio.timeout(5):
        writer.write(LIVE)
        await read_answer(reader)
        [protocol] = edge.server.server_state.connections
        assert isinstance(protocol, GuardedProtocol)
        assert protocol._deadline is None  # noqa: SLF001


async def test_good_requests_before_a_bad_one_are_answered_first(edge: Edge) -> None:
    received = await edge.send(LIVE + LIVE + b"NOT HTTP AT ALL\r\n\r\n")
    assert statuses(received) == [200, 200]


async def test_no_timer_and_no_connection_is_left_behind(edge: Edge) -> None:
    for sent in (b"", b"GET", LIVE_AND_CLOSE, POST + b"Content-Length: 3\r\n\r\n{", b"\x00"):
        async with edge.connected() as (_reader, writer):
            writer.write(sent)
            await writer.drain()

    async def all_gone() -> bool:
        return edge.connections == 0

    await eventually(all_gone, within=3)

    async def all_freed() -> bool:
        gc.collect()
        return not [kept for kept in gc.get_objects() if isinstance(kept, GuardedProtocol)]

    await eventually(all_freed, within=3)


async def test_too_many_connections_are_shed_with_a_time_to_come_back(database_url: str) -> None:
    async with open_edge(database_url, http={"max_connections": 2}) as edge, edge.connected(), edge.connected():

        async def both_there() -> bool:
            return edge.connections == 2

        await eventually(both_there)
        # Health probes have a reserve; nothing else does.
        received = await edge.send(LIVE.replace(b"/livez", b"/v1/linked-accounts"))
        is_problem(received, 503, "overloaded")
        assert b"retry-after: 1\r\n" in received


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 2\r\n", b"Content-Length: 99999999\r\n", b"Transfer-Encoding: chunked\r\n"],
    ids=["a length", "too much", "chunked"],
)
@pytest.mark.parametrize("credential", [b"", b"Authorization: Bearer sk_no\r\n"], ids=["none", "a bad one"])
async def test_nobody_is_asked_for_a_body_before_the_credential_was_looked_at(
    edge: Edge, framing: bytes, credential: bytes
) -> None:
    tried = 0
    for path, methods in edge.web.openapi()["paths"].items():
        for method in (method for method, operation in methods.items() if "requestBody" in operation):
            line = f"{method.upper()} {re.sub('{[^}]*}', 'x', path)} HTTP/1.1\r\n".encode()
            head = line + b"Host: b\r\nContent-Type: application/json\r\n" + framing + credential
            async with edge.connected() as (reader, writer):
                writer.write(head + b"Expect: 100-continue\r\n\r\n")
                received = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=4)
            # One that says that it is too large is not read, whoever sends it.
            assert statuses(received) in ([401], [413] if b"99999999" in framing else []), line
            tried += 1
    assert tried > 10


async def test_a_body_that_the_framework_judges_is_counted_once(database_url: str) -> None:
    once = {"mint_per_user": "1/hour"}
    async with open_edge(database_url, limits=once) as edge:
        head = CHUNKED + edge.as_user() + b"Expect: 100-continue\r\n\r\n"
        async with edge.connected() as (reader, writer):
            writer.write(head)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(b"2\r\n{}\r\n0\r\n\r\n")
            assert statuses(await read_answer(reader)) == [201]
            writer.write(head)
            assert statuses(await read_answer(reader)) == [429]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_who_sends_a_body_to_its_end_reads_the_answer_that_came_before_it(edge: Edge, version: bytes) -> None:
    """So does nginx as it comes; a reset made it a 502, and this broker one that is sent nothing for ten seconds."""
    head = b"POST /v1/connect-sessions HTTP/%s\r\nHost: x\r\nConnection: close\r\n" % version
    size = 3_000_000
    async with edge.connected() as (reader, writer):
        writer.write(head + b"Content-Length: %d\r\n\r\n" % size)
        await asyncio.sleep(0.2)  # it has been answered
        for _ in range(30):
            writer.write(b"x" * (size // 30))
            await writer.drain()
        assert statuses(await reader.read()) == [401]


async def test_what_comes_behind_the_body_of_the_last_request_is_no_request(edge: Edge) -> None:
    last = b"POST /v1/connect-sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"
    async with edge.connected() as (reader, writer):
        writer.write(last)
        await asyncio.sleep(0.2)
        writer.write(b"x" * 9 + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses(await reader.read()) == [401]


async def test_who_never_sends_the_body_of_the_last_request_is_let_go(edge: Edge) -> None:
    last = b"POST /v1/connect-sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"
    async with edge.connected() as (reader, writer):
        writer.write(last)
        # The answer ends at once, and the connection with the deadline of a body.
        assert statuses(await reader.read()) == [401]
        assert edge.connections == 1

        async def is_gone() -> bool:
            return edge.connections == 0

        await eventually(is_gone, within=3)
