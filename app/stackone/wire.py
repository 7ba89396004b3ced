"""The wire to StackOne: httpx2's face, aiohttp underneath (docs/adr/0005-wire-to-stackone.md).

A request goes out once. What became of it is told in httpx2's exceptions, and those alone decide what may be repeated:
ConnectError, ConnectTimeout and PoolTimeout mean that it never left, all others that it may have arrived.
"""

import ssl
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, Final

import aiohttp
import httpx2
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from app.outbound import around_proxy, trusted
from app.settings import TlsSettings

_READ_AT_ONCE: Final = 65_536
_LONGEST_HEAD_LINE: Final = 16_384
_MOST_HEAD_LINES: Final = 128
_KEPT_IDLE_SECONDS: Final = 15.0

# The first that fits counts, so subclasses come before their bases. A test goes through all of aiohttp's own.
_MEANING: Final[tuple[tuple[type[Exception], type[httpx2.TransportError]], ...]] = (
    (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx2.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx2.ConnectError),
    (aiohttp.ServerFingerprintMismatch, httpx2.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx2.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx2.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx2.RemoteProtocolError),
    (aiohttp.ClientError, httpx2.ReadError),
    (TimeoutError, httpx2.ReadTimeout),
    # A TLS session that fails late, and sockets: whatever it is, the request may have arrived.
    (OSError, httpx2.ReadError),
)
_FAILURES: Final = tuple(theirs for theirs, _ in _MEANING)


def open_wire(tls: TlsSettings, *, max_connections: int) -> httpx2.AsyncBaseTransport:
    """Make the transport to StackOne. What goes through a proxy is carried by httpx2."""
    limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    return around_proxy(Wire(trusted(tls), max_connections=max_connections), tls, limits)


def meaning_of(error: Exception) -> type[httpx2.TransportError]:
    """Return what a failure of the carrier is in httpx2's words."""
    return next(ours for theirs, ours in _MEANING if isinstance(error, theirs))


class _StaleConnection(aiohttp.ClientConnectorError):
    """A kept connection on which something came that nobody had asked for. The request was not sent."""

    def __init__(self, request: aiohttp.ClientRequest) -> None:
        super().__init__(request.connection_key, OSError("an answer came before its request"))


class _Request(aiohttp.ClientRequest):
    """A request that is sent only on a connection where nothing lies ready to be taken for its answer.

    A server that answers twice, or more than it announced, would otherwise have one owner's answer read as another's.
    """

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise _StaleConnection(self)
        return await super().send(conn)


class Wire(httpx2.AsyncBaseTransport):
    """Carries requests over kept connections, without cookies, redirects, proxies, repeats or unpacking."""

    def __init__(self, trusted: ssl.SSLContext, *, max_connections: int) -> None:
        """Open nothing yet."""
        self._trusted = trusted
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; the answer's body is read by who gets it."""
        session = self._session or self._open()
        try:
            answer = await session.request(
                request.method,
                _address(str(request.url)),
                headers=_headers(tuple(request.headers.raw)),
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=_timeout(**request.extensions.get("timeout", {})),
            )
        except _FAILURES as error:
            # From what the carrier had from the operating system or TLS, which says what failed.
            raise meaning_of(error)(str(error), request=request) from error.__cause__ or error
        response = httpx2.Response(
            answer.status, headers=answer.raw_headers, stream=_Body(answer, request), request=request
        )
        # What headers are sent in (RFC 9110 5.5); to guess it would cost more than reading them.
        response.headers.encoding = "latin-1"
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        # Not before a loop runs: a session belongs to one.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections,
                ssl=self._trusted,
                keepalive_timeout=_KEPT_IDLE_SECONDS,
                resolver=aiohttp.ThreadedResolver(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_AT_ONCE,
            max_line_size=_LONGEST_HEAD_LINE,
            max_field_size=_LONGEST_HEAD_LINE,
            max_headers=_MOST_HEAD_LINES,
        )
        # It would send GET and DELETE again by itself, unseen by budget and breaker. There is no public switch.
        self._session._retry_connection = False  # noqa: SLF001
        return self._session


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, as it came."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._answer.content.readany():
                yield piece
        except _FAILURES as error:
            raise meaning_of(error)(str(error), request=self._request) from error.__cause__ or error

    async def aclose(self) -> None:
        """Keep the connection if the answer was read to its end, and close it otherwise."""
        self._answer.release()


# Few differ: by the length of the body and its kind.
@lru_cache(maxsize=256)
def _headers(raw: tuple[tuple[bytes, bytes], ...]) -> CIMultiDictProxy[str]:
    """Spell headers as aiohttp wants them."""
    return CIMultiDictProxy(CIMultiDict((name.decode(), value.decode()) for name, value in raw))


@lru_cache(maxsize=256)
def _address(url: str) -> URL:
    """Parse an address without spelling it anew."""
    return URL(url, encoded=True)


@lru_cache(maxsize=16)
def _timeout(
    *, connect: float | None = None, read: float | None = None, write: float | None = None, pool: float | None = None
) -> aiohttp.ClientTimeout:
    """Spell httpx2's timeouts out. Bodies are small, and a peer that reads nothing does not answer either."""
    del write
    waits = [seconds for seconds in (connect, pool) if seconds is not None]
    return aiohttp.ClientTimeout(
        total=None, connect=max(waits) if waits else None, sock_connect=connect, sock_read=read, ceil_threshold=60
    )
