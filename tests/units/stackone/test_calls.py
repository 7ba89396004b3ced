"""Calls on raw sockets: how often one is made, how long it takes, how much of an answer is read, whose turn it is."""

import asyncio
import gzip
import json
import random
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from typing_extensions import override

from app.clock import SystemClock
from app.errors import AppError, Unavailable, UpstreamRejected
from app.metrics import Metrics
from app.settings import StackOneSettings
from app.stackone.call import Call, Calls
from app.stackone.turns import Turns
from app.stackone.wire import Wire
from tests.support.raw_server import Connection, Script, raw_server

pytestmark = pytest.mark.anyio

READ = Call("get_account", "GET", "/accounts/1", subject="1")
MINT = Call("create_connect_session", "POST", "/connect_sessions", body={"a": "ä"}, owner_id="acme", subject="acme")
DELETE = Call("delete_account", "DELETE", "/accounts/1", once=True, subject="1")
CAP = 1_000_000


class _AtOnce(random.Random):
    """Chance that makes every wait before a repeat nothing."""

    @override
    def uniform(self, a: float, b: float) -> float:
        return 0.0


@asynccontextmanager
async def calls_to(url: str, **settings: Any) -> AsyncIterator[Calls]:
    values = {
        "api_key": "demo-key-of-the-calls",
        "webhook_secrets": ["demo-secret-of-the-calls"],
        "base_url": url,
        "max_attempts": 3,
        "breaker_failures": 1000,
        "max_answer_bytes": CAP,
        **settings,
    }
    connections = values.get("max_connections", 10)
    made = Calls(
        StackOneSettings.model_validate(values),
        clock=SystemClock(),
        metrics=Metrics(),
        transport=Wire(ssl.create_default_context(), max_connections=connections),
        jitter=_AtOnce(),
    )
    yield made
    await made.close()


def answering(*pieces: bytes, reset: bool = False) -> Script:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(*pieces)
        if reset:
            connection.reset()

    return script


def answer(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers, b"", body])


BROKEN = {
    "hung up": answering(),
    "reset": answering(reset=True),
    "half an answer": answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
    "no HTTP": answering(b"220 mail.example ESMTP\r\n"),
    "no JSON": answering(answer(b"<html>")),
    "half of gzip": answering(answer(gzip.compress(b"{}")[:-9], b"content-encoding: gzip")),
    "no gzip": answering(answer(b"{}", b"content-encoding: gzip")),
    "gzip in many pieces": answering(answer(gzip.compress(b"") * 101, b"content-encoding: gzip")),
    "packed as nobody asked for": answering(answer(b"{}", b"content-encoding: br")),
    "away": answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_only_what_is_harmless_twice_is_made_again(what: str) -> None:
    for call, times in ((READ, 3), (MINT, 3), (DELETE, 1)):
        async with raw_server(BROKEN[what]) as server, calls_to(server.url) as calls:
            with pytest.raises(Unavailable):
                await calls.make(call)
            assert (len(server.arrived), server.connections) == (times, times), call


async def test_what_never_left_is_named_as_such() -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with calls_to(f"http://127.0.0.1:{nobody.getsockname()[1]}") as calls:
            for call in (READ, MINT, DELETE):
                with pytest.raises(Unavailable, match="no connection to StackOne can be made"):
                    await calls.make(call)


async def test_a_call_goes_out_with_the_key_and_without_what_a_client_would_add() -> None:
    async with raw_server(answering(answer(b'{"token": "t"}'))) as server, calls_to(server.url) as calls:
        assert await calls.make(MINT) == {"token": "t"}
        [sent] = server.arrived
    head, _, body = sent.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert first == b"POST /connect_sessions HTTP/1.1"
    assert sorted(line.lower() for line in lines) == [
        b"accept-encoding: gzip",
        b"accept: application/json",
        b"authorization: basic zgvtby1rzxktb2ytdghllwnhbgxzog==",
        b"content-length: %d" % len(body),
        b"content-type: application/json",
        b"host: 127.0.0.1:%d" % server.port,
        b"user-agent: connect-broker",
    ]
    assert json.loads(body) == {"a": "ä"}


async def test_an_answer_that_trickles_ends_at_the_deadline() -> None:
    async def trickle(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await connection.send(b" ")
            await asyncio.sleep(0.02)

    async def hints(connection: Connection) -> None:
        await connection.read_request()
        while True:
            await connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await asyncio.sleep(0.02)

    for script in (trickle, hints):
        async with raw_server(script) as server, calls_to(server.url, timeout_seconds=0.2, max_attempts=1) as calls:
            async with asyncio.timeout(1):
                with pytest.raises(Unavailable, match="did not answer in time"):
                    await calls.make(READ)


async def test_answers_are_unpacked_as_far_as_they_may_be_long() -> None:
    fits = json.dumps({"a": "b" * (CAP - 100)}).encode()
    packed = {
        "gzip": gzip.compress(fits),
        "x-gzip": gzip.compress(fits[:1000]) + gzip.compress(fits[1000:]),
        "deflate": zlib.compress(fits),
        "GZIP": gzip.compress(fits),
        " gzip ": gzip.compress(fits),
        "Identity": fits,
        "identity": fits,
    }
    for encoding, body in packed.items():
        script = answering(answer(body, b"content-encoding: " + encoding.encode()))
        async with raw_server(script) as server, calls_to(server.url) as calls:
            assert await calls.make(READ) == json.loads(fits)


@pytest.mark.parametrize("kind", ["plain", "chunked", "gzip", "members of gzip", "gzip of gzip"])
async def test_an_answer_that_is_too_long_is_not_held(kind: str) -> None:
    huge = 20 * CAP
    member = gzip.compress(b" " * CAP)
    bomb = {
        "gzip": gzip.compress(b" " * huge),
        "members of gzip": member * 20,
        "gzip of gzip": gzip.compress(gzip.compress(b" " * huge)),
    }
    if kind in bomb:
        script = answering(answer(bomb[kind], b"content-encoding: gzip"))
    else:

        async def script(connection: Connection) -> None:
            await connection.read_request()
            head = b"transfer-encoding: chunked" if kind == "chunked" else b"content-length: %d" % huge
            await connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            piece = b" " * 65_536
            while True:
                await connection.send(b"10000\r\n" + piece + b"\r\n" if kind == "chunked" else piece)

    async with raw_server(script) as server, calls_to(server.url) as calls:
        tracemalloc.start()
        with pytest.raises(AppError) as caught:
            await calls.make(READ)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Packed twice, its first layer fits, and is no JSON.
        assert isinstance(caught.value, Unavailable if kind == "gzip of gzip" else UpstreamRejected)
        assert most < 5 * CAP


async def test_once_all_connections_are_in_use_owners_take_turns() -> None:
    hold = asyncio.Event()
    order: list[str] = []

    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            order.append(json.loads(connection.server.arrived[-1].partition(b"\r\n\r\n")[2])["owner"])
            await hold.wait()
            await connection.send(answer(b"{}"))

    def mint(owner: str) -> Call:
        return Call("create_connect_session", "POST", "/connect_sessions", body={"owner": owner}, owner_id=owner)

    async with raw_server(script) as server, calls_to(server.url, max_connections=2) as calls:
        greedy = [asyncio.create_task(calls.make(mint("greedy"))) for _ in range(20)]
        await server.has_arrived.wait()
        others = [asyncio.create_task(calls.make(mint(owner))) for owner in ("b", "c")]
        gone = asyncio.create_task(calls.make(mint("d")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        hold.set()
        await asyncio.gather(*greedy, *others)
        assert server.connections == 2
        assert "d" not in order
        # Two have connections, and the third is the greedy one's turn; from then on it is in line like anybody else.
        assert max(order.index("b"), order.index("c")) <= 5


async def test_a_place_is_never_lost() -> None:
    chance = random.Random(3)  # noqa: S311  a test's randomness
    turns = Turns(3)
    taken = most = 0

    async def visit() -> None:
        nonlocal taken, most
        await turns.take(chance.choice("abc"))
        taken += 1
        most = max(most, taken)
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            taken -= 1
            turns.give_back()

    visits = [asyncio.create_task(visit()) for _ in range(300)]
    while not all(task.done() for task in visits):
        chance.choice(visits).cancel()
        await asyncio.sleep(0)
    assert most == 3
    async with asyncio.timeout(1):
        for _ in range(3):
            await turns.take("z")
