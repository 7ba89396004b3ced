"""How much a client may send, how slowly, and how long it may leave answers unread.

What uvicorn lacks, and each part here waits for: deadlines for a head, for a body and for an answer that nobody reads
(it has keep-alive only), a limit on a head's size with httptools, bounds on pipelined requests and on connections (its
limit_concurrency refuses health probes too), and the bodies of requests that offer an upgrade. One deadline at a time
runs for what a client owes, and none while the app works.
"""

import asyncio
import time
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, cast

import httptools
import structlog
from prometheus_client import Counter
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.errors import AppError, HeadTooLarge, InvalidRequest, Overloaded, RequestTimeout
from app.http.middleware import SECURITY_HEADERS
from app.http.peer import PEER
from app.http.problems import MEDIA_TYPE, problem_body
from app.settings import HttpSettings

logger = structlog.get_logger(__name__)

_TOLD_EVERY_SECONDS = 1.0
# Connections beyond the limit that serve health probes and nothing else.
HEALTH_RESERVE = 16
_HEALTH_PATHS = frozenset({b"/livez", b"/readyz"})
_LEAST_PER_ADDRESS = 16
_MOST_PIPELINED = 16
# A loop that was busy past a deadline runs its timers before it looks at its sockets: what a client sent in time lies
# there unread. So each deadline is looked at twice, with one look at the sockets in between.
_ONE_TURN_SECONDS = 0.001
_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_PROBLEMS: Mapping[int, type[AppError]] = {
    kind.status: kind for kind in (InvalidRequest, RequestTimeout, HeadTooLarge, Overloaded)
}
_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_COMMON_HEADERS = [*_HEADERS, (b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]


class _Awaited(Enum):
    HEAD = auto()
    BODY = auto()
    NOTHING = auto()


class _HeadTooLargeError(Exception):
    """Stops the parser in the middle of a head."""


class Shed:
    """What is answered 503 because there is too much: counted, and told once a second, since lines are load too."""

    def __init__(self, most: int) -> None:
        """Name the limit."""
        self._most = most
        self._since_told = 0
        self._told_at = -_TOLD_EVERY_SECONDS
        self.counter: Counter | None = None

    def count(self, what: str) -> None:
        """Count one."""
        self._since_told += 1
        if self.counter is not None:
            self.counter.inc()
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_SECONDS:
            logger.warning(
                "overloaded",
                status=503,
                shed=self._since_told,
                detail=f"{what} came while {self._most} were open, or its address held too many that do nothing",
                remedy="run more replicas, or raise BROKER_HTTP__MAX_CONNECTIONS where CPU is left",
            )
            self._told_at, self._since_told = now, 0


class _OpenTransport:
    """A transport to which writing after its end does nothing.

    Between a client's reset and `connection_lost` the loop runs other tasks, and uvloop raises to whoever writes then:
    an answer that nobody waits for any more would end as an error of the application.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Write, unless the connection is at its end."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a limit on the head and deadlines for head and body; see `guarded_protocol`."""

    max_header_bytes: int
    header_timeout: float
    body_timeout: float
    write_timeout: float
    max_requests: int
    is_draining: bool = False
    """Set on the class when the server begins to stop."""
    trusted: frozenset[str] = frozenset()
    shed: "Shed"

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Wait for a head: a new connection begins with one."""
        super().__init__(config, server_state, app_state, _loop)
        self._awaited = _Awaited.HEAD
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._is_refused = False
        self._is_too_large = False
        # Of the head: bytes received while it was incomplete, and bytes of it that the parser has parsed.
        self._head_bytes = 0
        self._parsed_bytes = 0
        self._messages = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head; turn the connection away if there are too many."""
        super().connection_made(cast("asyncio.Transport", _OpenTransport(transport)))
        # Whatever the client does not take from the kernel counts from its first byte on.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.max_requests + HEALTH_RESERVE or self._has_too_many_idle_peers():
            self._is_refused = True
            self.shed.count("a connection")
            transport.write(_raw_answer(503))
            transport.close()
            return
        self._wait(self.header_timeout)

    def _has_too_many_idle_peers(self) -> bool:
        """Tell whether one address holds more than its share of connections that send and read nothing."""
        most = max(_LEAST_PER_ADDRESS, self.max_requests // 4)
        if len(self.connections) <= most or self.client is None or self.client[0] in self.trusted:
            return False
        address = self.client[0]
        idle = sum(
            1
            for other in self.connections
            if isinstance(other, GuardedProtocol) and other.is_stalled and other.client and other.client[0] == address
        )
        return idle > most

    @property
    def is_stalled(self) -> bool:
        """Whether the client owes something: a first head, the rest of a request, or the reading of an answer."""
        return self._deadline is not None or self._write_deadline is not None

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self.write_timeout, self._writing_took_too_long)

    def _writing_took_too_long(self) -> None:
        self._write_deadline = self.loop.call_later(_ONE_TURN_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Everything was read."""
        super().resume_writing()
        self._stop_write_deadline()

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self._stop_waiting()
        self._stop_write_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser in pieces of at most what a head may still have, so that a larger one is noticed."""
        self._unset_keepalive_if_required()
        if self._awaited is _Awaited.NOTHING and self._unanswered() is None and self._deadline is None:
            # Line breaks between requests begin no message, and would keep the connection open for ever.
            self._wait(self.header_timeout)
        start = 0
        while start < len(data) and not self._is_refused and self.parser is not None:
            in_head = self._awaited is _Awaited.HEAD
            piece = data[start : start + self.max_header_bytes - (self._head_bytes if in_head else 0)]
            start += len(piece)
            if not self._feed(piece):
                return

    def _feed(self, piece: bytes) -> bool:
        """Parse a piece; return whether to go on."""
        messages = self._messages
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            return self._go_on_without_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(431 if self._is_too_large else 400)
            return False
        if self._awaited is _Awaited.HEAD:
            # Bytes that came after the end of another message cannot be told from its own; they are not counted.
            self._head_bytes = self._head_bytes + len(piece) if messages == self._messages else 0
            if self._head_bytes >= self.max_header_bytes:
                self._refuse(431)
        return not self._is_refused

    def _go_on_without_upgrade(self, rest: bytes) -> bool:
        """Read a request that offered another protocol as the HTTP/1.1 request that it also is (RFC 9110 section 7.8).

        The parser ends such a message with its head and hands everything behind it over: a body would be dropped and
        the request acted upon without it. So the head is parsed once more without the offer, and the body after it.
        """
        if self._is_connect():
            # It has no body that could be told from a tunnel's bytes; its answer ends the connection.
            self.cycle.keep_alive = False
            return False
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s: %s" % header for header in self.headers if header[0] not in {b"upgrade", b"connection"}]
        tokens = {
            token.strip().lower()
            for name, value in self.headers
            if name == b"connection"
            for token in value.split(b",")
        }
        if kept := tokens & {b"close", b"keep-alive"}:
            lines.append(b"connection: " + b", ".join(sorted(kept)))
        head = b"\r\n".join([b"%s %s HTTP/%s" % (method, self.url, version), *lines, b"", b""])
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return self._feed(head) and (not rest or self._feed(rest))

    def _is_connect(self) -> bool:
        return bool(self.parser.get_method() == b"CONNECT")

    def _is_offered_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and not self._is_connect()

    def on_message_begin(self) -> None:
        """Begin a head; the deadline may be running already, since the connection or the last request."""
        self._awaited = _Awaited.HEAD
        self._has_begun = True
        self._head_bytes = self._parsed_bytes = 0
        if self._deadline is None:
            self._wait(self.header_timeout)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count what was parsed."""
        self._count_parsed(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what was parsed. Trailers are dropped: merged into the headers, they could replace what a proxy set."""
        self._count_parsed(len(name) + len(value) + 4)
        if self._awaited is _Awaited.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on to the body; shed the request if there are too many."""
        if self._is_offered_upgrade():
            return
        self._awaited = _Awaited.BODY
        self._wait(self.body_timeout)
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._is_refused = True
            self._stop_waiting()
            self.transport.close()
            return
        is_crowded = len(self.connections) > self.max_requests or len(self.tasks) >= self.max_requests
        # A busy broker must not be killed by its health check.
        is_probe = self.url.partition(b"?")[0] in _HEALTH_PATHS
        is_shed = is_crowded and not is_probe
        if is_shed:
            self.shed.count("a request")
        self.app = _overloaded if is_shed else self.config.loaded_app
        # Beside the scope's own names, as frameworks do it.
        cast("dict[str, Any]", self.scope)[PEER] = self.client[0] if self.client else None
        super().on_headers_complete()
        if self.is_draining:
            # Whoever keeps connections open is told on each that it ends, before it is closed under a request.
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Wait for nothing more of this request."""
        if self._is_offered_upgrade():
            return
        self._awaited = _Awaited.NOTHING
        self._has_begun = False
        self._messages += 1
        self._stop_waiting()
        super().on_message_complete()

    def _unanswered(self) -> RequestResponseCycle | None:
        """Return the newest request if it still waits for its answer or for the end of it."""
        cycle: RequestResponseCycle | None = self.cycle
        return None if cycle is None or cycle.response_complete else cycle

    def _count_parsed(self, size: int) -> None:
        self._parsed_bytes += size
        if self._parsed_bytes > self.max_header_bytes:
            self._is_too_large = True
            raise _HeadTooLargeError

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self._time_is_nearly_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_is_nearly_up(self) -> None:
        self._deadline = self.loop.call_later(_ONE_TURN_SECONDS, self._time_is_up)

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, unless its next request has come meanwhile."""
        self.timeout_keep_alive_task = self.loop.call_later(_ONE_TURN_SECONDS, super().timeout_keep_alive_handler)

    def _time_is_up(self) -> None:
        self._deadline = None
        if self._has_begun:
            self._refuse(408)
        else:
            self._is_refused = True
            self.transport.close()

    def _refuse(self, status: int) -> None:
        """End the connection, with an answer where nobody could take it for the answer to something else."""
        self._is_refused = True
        self._stop_waiting()
        if self.transport.is_closing():
            return
        cycle = self._unanswered()
        if cycle is not None and self._awaited is not _Awaited.BODY:
            # The bad head follows good requests: those are answered, and then the connection ends.
            cycle.keep_alive = False
            return
        if cycle is not None:
            if self.pipeline or cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(_raw_answer(status))
        self.transport.close()


def guarded_protocol(settings: HttpSettings) -> type[GuardedProtocol]:
    """Return the protocol class with these limits; uvicorn makes one instance per connection."""

    class Guarded(GuardedProtocol):
        max_header_bytes = settings.max_header_bytes
        header_timeout = settings.header_timeout_seconds
        body_timeout = settings.body_timeout_seconds
        write_timeout = settings.write_timeout_seconds
        trusted = frozenset(settings.trusted_proxies)
        max_requests = settings.max_connections
        shed = Shed(settings.max_connections)

    return Guarded


def _raw_answer(status: int) -> bytes:
    body = problem_body(_PROBLEMS[status])
    headers = [*_COMMON_HEADERS, (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    head = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, _REASONS[status].encode(), head, body)


async def _overloaded(_scope: Scope, _receive: Receive, send: Send) -> None:
    body = problem_body(Overloaded)
    headers = [
        *_COMMON_HEADERS,
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
