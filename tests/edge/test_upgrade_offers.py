"""Offers of another protocol (Java's HttpClient and whatever is built on it makes one with every cleartext request).

The body of such a request is read like that of any other: what was not read to its end is never acted upon.
"""

import json

import pytest

from tests.edge.conftest import Edge, read_answer, statuses

pytestmark = pytest.mark.anyio

BODY = json.dumps({"provider": "bamboohr"}).encode()
OFFERS = {
    "h2c, as Java's HttpClient": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    ),
    "h2c and close": b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "several, capitals": b"CONNECTION: keep-alive, UPGRADE\r\nUPGRADE: foo/1, h2c\r\n",
    "two Connection headers": b"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c\r\n",
}
LIVE_AND_CLOSE = b"GET /livez HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"


def mint(edge: Edge, offer: bytes, *, chunked: bool) -> bytes:
    head = (
        b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n" + edge.as_user() + offer
    )
    if chunked:
        half = len(BODY) // 2
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BODY[:half], BODY[half:]))
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_the_body_of_a_request_that_offers_an_upgrade_counts(edge: Edge, offer: bytes, *, chunked: bool) -> None:
    received = await edge.send(mint(edge, offer, chunked=chunked) + LIVE_AND_CLOSE)
    assert statuses(received) == ([201] if b"close" in offer else [201, 200])
    assert [json.loads(request.content)["provider"] for request in edge.sent_upstream] == ["bamboohr"]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_wherever_it_is_split(edge: Edge, *, chunked: bool) -> None:
    request = mint(edge, OFFERS["h2c, as Java's HttpClient"], chunked=chunked)
    head_ends = request.index(b"\r\n\r\n") + 4
    async with edge.connected() as (reader, writer):
        places = [*range(1, head_ends, 60), *range(head_ends - 5, len(request), 2)]
        for place in places:
            for piece in (request[:place], request[place:]):
                writer.write(piece)
                await writer.drain()
            assert statuses(await read_answer(reader)) == [201], place
    assert {json.loads(sent.content)["provider"] for sent in edge.sent_upstream} == {"bamboohr"}
    assert len(edge.sent_upstream) == len(places)


async def test_byte_by_byte(edge: Edge) -> None:
    request = mint(edge, OFFERS["h2c, as Java's HttpClient"], chunked=False) + LIVE_AND_CLOSE
    received = await edge.send(*(request[place : place + 1] for place in range(len(request))))
    assert statuses(received) == [201, 200]


@pytest.mark.parametrize("rest", [b"", b"{", BODY[:-1]], ids=["nothing", "a byte", "all but one"])
async def test_a_body_that_does_not_come_is_waited_for_and_nothing_is_done(edge: Edge, rest: bytes) -> None:
    whole = mint(edge, OFFERS["h2c, as Java's HttpClient"], chunked=False)
    received = await edge.send(whole[: -len(BODY)] + rest, within=4)
    assert statuses(received) == [408]
    assert edge.sent_upstream == []


async def test_what_no_request_may_have_it_may_not_have_either(edge: Edge) -> None:
    head = mint(edge, OFFERS["h2c, as Java's HttpClient"], chunked=False)
    both = head.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length")
    assert statuses(await edge.send(both)) == [400]
    large = head.replace(b"Upgrade: h2c", b"Upgrade: h2c\r\nX: " + b"a" * 20_000)
    assert statuses(await edge.send(large)) == [431]
    assert edge.sent_upstream == []
