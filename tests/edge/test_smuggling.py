"""Requests on whose end two servers could disagree are refused, and never answered as two."""

import pytest

from tests.edge.conftest import Edge, statuses

pytestmark = pytest.mark.anyio

HIDDEN = b"GET /livez HTTP/1.1\r\nHost: b\r\n\r\n"
POST = b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"

AMBIGUOUS = {
    "content-length beside transfer-encoding": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "transfer-encoding beside content-length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "two different content-lengths": POST + b"Content-Length: 0\r\nContent-Length: 33\r\n\r\n" + HIDDEN,
    "two equal content-lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "a list of content-lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}" + HIDDEN,
    "a negative content-length": POST + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a signed content-length": POST + b"Content-Length: +2\r\n\r\n{}" + HIDDEN,
    "a hexadecimal content-length": POST + b"Content-Length: 0x2\r\n\r\n{}" + HIDDEN,
    "a content-length beyond 64 bits": POST + b"Content-Length: 18446744073709551618\r\n\r\n{}" + HIDDEN,
    "an empty content-length": POST + b"Content-Length:\r\n\r\n{}" + HIDDEN,
    "an unknown transfer-encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "identity after chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a space before the colon of content-length": POST + b"Content-Length : 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a vertical tab before chunked": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded header": POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded transfer-encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "bare line feeds": b"POST /v1/connect-sessions HTTP/1.1\nHost: b\nContent-Length: 2\n\n{}" + HIDDEN,
    "one bare line feed": POST + b"X: y\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a bare carriage return": POST + b"X: y\rContent-Length: 33\r\n\r\n" + HIDDEN,
    "a NUL in a header": POST + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a NUL in a name": POST + b"X\x00Y: b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a chunk size that is no number": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a negative chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk size with 0x": POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk size beyond 64 bits": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that ends in a bare line feed": POST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n" + HIDDEN,
    "a second request line in the first": b"GET /livez HTTP/1.1 GET / HTTP/1.1\r\nHost: b\r\n\r\n" + HIDDEN,
    "an unknown version": b"GET /livez HTTP/9.9\r\nHost: b\r\n\r\n" + HIDDEN,
    "a space in a header name": b"GET /livez HTTP/1.1\r\nHost: b\r\nX Y: z\r\n\r\n" + HIDDEN,
    "no method at all": b"/livez HTTP/1.1\r\nHost: b\r\n\r\n" + HIDDEN,
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "a TLS hello": bytes.fromhex("160301020001") + b"\x00" * 100,
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n",
    "the same host twice": b"GET /livez HTTP/1.1\r\nHost: b\r\nHost: b\r\n\r\n",
    "two hosts, one far behind": b"GET /livez HTTP/1.1\r\nHost: b\r\nX: y\r\nhOST: c\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /livez HTTP/1.0\r\nHost: b\r\nHost: c\r\n\r\n",
    "a host with a path": b"GET /livez HTTP/1.1\r\nHost: b/c\r\n\r\n",
    "a host with a user": b"GET /livez HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a list of hosts": b"GET /livez HTTP/1.1\r\nHost: b, c\r\n\r\n",
    "no host beside an upgrade": b"GET /livez HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "a target that is not ASCII": b"GET /\xff\xfe HTTP/1.1\r\nHost: b\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_what_could_be_two_requests_is_refused_and_never_two(edge: Edge, name: str) -> None:
    request = AMBIGUOUS[name].replace(b"Content-Type", edge.as_user() + b"Content-Type")
    received = await edge.send(request, within=4)
    answered = statuses(received)
    assert answered in ([400], []), received
    assert edge.sent_upstream == []


async def test_an_ambiguous_request_in_two_segments_is_refused_too(edge: Edge) -> None:
    request = POST + edge.as_user() + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN
    for cut in range(1, len(request), 97):
        assert statuses(await edge.send(request[:cut], request[cut:], within=4)) in ([400], [])
    assert edge.sent_upstream == []


@pytest.mark.parametrize(
    "host",
    [b"", b"b", b"10.0.0.7:8000", b"[::1]:8000", b"[fe80::1%25eth0]", b"broker.default.svc.cluster.local.:80", b"a_b"],
)
async def test_hosts_as_proxies_and_probes_write_them_are_taken(edge: Edge, host: bytes) -> None:
    received = await edge.send(b"GET /livez HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host)
    assert statuses(received) == [200]


async def test_http_1_0_needs_no_host(edge: Edge) -> None:
    assert statuses(await edge.send(b"GET /livez HTTP/1.0\r\n\r\n")) == [200]


async def test_an_upgrade_is_not_followed(edge: Edge) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    for protocol in (b"h2c", b"websocket"):
        # What follows is the next request of the connection, for whoever is in front and for us alike.
        received = await edge.send(request % protocol + HIDDEN, within=4, finish=False)
        assert statuses(received) == [200, 200]
        assert b"101 Switching" not in received
