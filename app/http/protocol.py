"""How much a client may send, how slowly, and how long it may leave answers unread.

What uvicorn lacks, by its issue that each part waits for: deadlines for a head, a body and an answer that nobody reads,
and a limit on heads with httptools (157, closed without them); the bodies of requests that offer an upgrade (2722); a
bound on pipelined requests (none is open); answers after a reset, for which uvloop raises (its issue 506). The places
for connections are in `capacity`. One deadline at a time runs for what a client owes, and none while the app works.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.errors import AppError, HeadTooLarge, InvalidRequest, Overloaded, RequestTimeout
from app.http.capacity import Capacity, Connections
from app.http.middleware import SECURITY_HEADERS
from app.http.peer import PEER, VERIFIED
from app.http.problems import MEDIA_TYPE, problem_body
from app.settings import HttpSettings

_HEALTH_PATHS = frozenset({b"/livez", b"/readyz"})
_MOST_PIPELINED = 16
_ONE_TURN_SECONDS = 0.001
# A head of nothing but tiny headers takes twenty times its size.
_MOST_HEADERS = 200
# A name or an IPv4 address, or an IPv6 address in brackets, and a port (RFC 9112 section 3.2).
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.%_~-]+\])(?::[0-9]*)?")


def _answer(problem: type[AppError], line: str, *more: str) -> bytes:
    body = problem_body(problem)
    headers = [
        *(f"{name}: {value}" for name, value in SECURITY_HEADERS.items()),
        f"content-type: {MEDIA_TYPE}",
        "cache-control: no-store",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    return "\r\n".join([f"HTTP/1.1 {problem.status} {line}", *headers, *more, "", ""]).encode() + body


_ANSWERS = {
    InvalidRequest: _answer(InvalidRequest, "Bad Request"),
    RequestTimeout: _answer(RequestTimeout, "Request Timeout"),
    HeadTooLarge: _answer(HeadTooLarge, "Request Header Fields Too Large"),
    Overloaded: _answer(Overloaded, "Service Unavailable", "retry-after: 1"),
}


class _State(Enum):
    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class _RefusedError(Exception):
    """Stops the parser at the end of a head."""

    def __init__(self, problem: type[AppError]) -> None:
        super().__init__()
        self.problem = problem


class _OpenTransport:
    """A transport that sends an answer's head together with its body, and to which writing after its end does nothing.

    uvicorn writes head and body apart, and the second write costs the kernel as much as the first. Between a client's
    reset and `connection_lost` the loop runs other tasks, and uvloop raises to whoever writes then: an answer that
    nobody waits for any more would end as an error of the application.

    The kernel resets a connection that is closed while there are bytes to read, and the answer may be lost with it. So
    a client that still sends a body reads the end of the answer at once, and is closed after its own (RFC 9112 9.6).
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_sending: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._is_sending = is_sending
        self._head = b""
        self.is_lingering = False

    def write(self, data: bytes) -> None:
        """Write, unless the connection is at its end; what begins like a head waits for the loop's next turn."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1."):
            self._head = data
            self._loop.call_soon(self._write_head)
            return
        if not self.is_closing():
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close the connection once everything is written; asked a second time, without waiting for the client."""
        self._write_head()
        if self.is_closing() or not self._is_sending():
            self._transport.close()
            return
        self.is_lingering = True
        self._transport.write_eof()

    def _write_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            if not self.is_closing():
                self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Deadline:
    """Ends something unless it is cancelled before.

    A loop that was busy past it runs its timers before it looks at its sockets, where what a client sent in time lies
    unread. So it is looked at twice, with one look at the sockets in between.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, end: Callable[[], object]) -> None:
        self._handle = loop.call_later(seconds, self._look_again, loop, end)

    def _look_again(self, loop: asyncio.AbstractEventLoop, end: Callable[[], object]) -> None:
        self._handle = loop.call_later(_ONE_TURN_SECONDS, end)

    def cancel(self) -> None:
        """Let it pass."""
        self._handle.cancel()


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; see `guarded_protocol`, which sets them."""

    limits: HttpSettings
    capacity: Capacity
    is_draining: bool = False
    """Set on the class when the server begins to stop."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Wait for nothing yet."""
        super().__init__(config, server_state, app_state, _loop)
        self._state = _State.IDLE
        self._is_refused = False
        self._deadline: _Deadline | None = None
        self._write_deadline: _Deadline | None = None
        # Bytes that the parser keeps, or has kept: since the head began, or since the last byte of a body.
        self._kept_bytes = 0
        self._since = 0.0

    # What others look at

    @property
    def address(self) -> str | None:
        """Where it comes from."""
        return self.client[0] if self.client else None

    @property
    def silent_since(self) -> float | None:
        """Since when the client owes something, or idles; None while something is done for it."""
        owes = self._deadline is not None or self._write_deadline is not None
        is_idle = self._state is _State.IDLE and not self._is_answering
        return self._since if (owes or is_idle) and not self._is_refused else None

    @property
    def is_verified(self) -> bool:
        """Whether it idles after the request of somebody whose credential was good."""
        owes = self._deadline is not None or self._write_deadline is not None
        return not owes and self._newest is not None and VERIFIED in self._newest.scope

    def give_way(self) -> None:
        """End it; what it has sent before is answered first."""
        if self._write_deadline is not None:
            self._is_refused = True
            self.transport.abort()
        else:
            self._refuse(Overloaded)

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head; turn the connection away if there are too many."""
        opened = _OpenTransport(transport, self.loop, lambda: self._state is _State.BODY and not self._is_refused)
        super().connection_made(cast("asyncio.Transport", opened))
        # Whatever the client does not take from the kernel counts from its first byte on.
        transport.set_write_buffer_limits(high=0)
        if self.capacity.make_room(self, cast("Connections", self.connections)):
            self._wait(self.limits.header_timeout_seconds)
        else:
            self._refuse(Overloaded)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self._stop_waiting()
        self._stop_write_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        if self._write_deadline is None:
            self._since = self.loop.time()
            self._write_deadline = _Deadline(self.loop, self.limits.write_timeout_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Everything was read."""
        super().resume_writing()
        self._stop_write_deadline()

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser in pieces, each of no more than it may still keep."""
        self._unset_keepalive_if_required()
        if self._state is _State.IDLE and not self._is_answering:
            self._kept_bytes = 0
            if self._deadline is None:
                # Line breaks between requests begin no message, and would keep the connection open for ever.
                self._wait(self.limits.header_timeout_seconds)
        while data and not self._is_refused and self.parser is not None:
            size = self.limits.max_header_bytes - self._kept_bytes
            self._feed(data[:size])
            data = data[size:]

    def _feed(self, piece: bytes) -> None:
        self._kept_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.problem if isinstance(cause, _RefusedError) else InvalidRequest)
        if self._kept_bytes >= self.limits.max_header_bytes:
            self._refuse(HeadTooLarge)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read a request that offered another protocol as the HTTP/1.1 request that it also is (RFC 9110 section 7.8).

        The parser ends such a message with its head and hands everything behind it over: a body would be dropped and
        the request acted upon without it. So the head is parsed once more without the offer, and the body after it.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            # It has no body that could be told from a tunnel's bytes.
            self._refuse(InvalidRequest)
            return
        lines = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        head = b"\r\n".join([b"%s %s HTTP/%s" % (method, self.url, version), *lines, b"", b""])
        self._kept_bytes = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(head)
        if rest and not self._is_refused:
            self._feed(rest)

    # What the parser tells

    def on_message_begin(self) -> None:
        """Begin a head; the deadline may be running already, since the connection or the last request."""
        self._state = _State.HEAD
        if self._deadline is None:
            self._wait(self.limits.header_timeout_seconds)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Drop trailers: merged into the headers, they could replace what a proxy set."""
        if self._state is not _State.HEAD:
            return
        if len(self.headers) >= _MOST_HEADERS:
            raise _RefusedError(HeadTooLarge)
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            # gzip, chunked: a body that nobody here unpacks.
            raise _RefusedError(InvalidRequest)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on to the body; shed the request if there are too many."""
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= _MOST_PIPELINED or not self._has_one_host():
            raise _RefusedError(InvalidRequest)
        if self._is_answering and self._head_bytes() > self.limits.max_header_bytes:
            # The piece in which a head begins behind another request is not counted for it.
            raise _RefusedError(HeadTooLarge)
        # A busy broker must not be killed by its health check.
        is_probe = self.url.partition(b"?")[0] in _HEALTH_PATHS
        if not is_probe and self.capacity.is_crowded(self.connections, self.tasks):
            self.capacity.count("a request")
            raise _RefusedError(Overloaded)
        # Beside the scope's own names, as frameworks do it.
        cast("dict[str, Any]", self.scope)[PEER] = self.address
        self._let_go()
        # To a client of HTTP/1.0 the interim answer would be the only one.
        self.expect_100_continue &= self.parser.get_http_version() != "1.0"
        super().on_headers_complete()
        self._state = _State.BODY
        self._wait(self.limits.body_timeout_seconds)
        if self.is_draining:
            # Whoever keeps connections open is told on each that it ends, before it is closed under a request.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self._let_go()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for nothing more of this request."""
        if self.parser.should_upgrade():
            return
        self._state = _State.IDLE
        self._let_go()
        self._stop_waiting()
        super().on_message_complete()
        if self.transport.is_closing():
            # What follows the last request is none.
            raise _RefusedError(InvalidRequest)

    def on_response_complete(self) -> None:
        """Idle, if nothing else is there."""
        self._since = self.loop.time()
        super().on_response_complete()
        if cast("_OpenTransport", self.transport).is_lingering:
            self.flow.resume_reading()

    @property
    def _is_answering(self) -> bool:
        """Whether the newest request still waits for its answer or for the end of it."""
        return self._newest is not None and not self._newest.response_complete

    @property
    def _newest(self) -> RequestResponseCycle | None:
        return self.cycle

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _has_one_host(self) -> bool:
        """Tell whether nobody in front can have sent it elsewhere than it says; HTTP/1.0 may say nothing."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if not hosts:
            return self.parser.get_http_version() == "1.0"
        return len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None

    def _let_go(self) -> None:
        # Heads that wait behind others are kept, all of them together.
        if not self.pipeline:
            self._kept_bytes = 0

    # Deadlines, and the end

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._since = self.loop.time()
        self._deadline = _Deadline(self.loop, seconds, partial(self._refuse, RequestTimeout))

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, unless its next request has come meanwhile."""
        self.timeout_keep_alive_task = self.loop.call_later(_ONE_TURN_SECONDS, super().timeout_keep_alive_handler)

    def _refuse(self, problem: type[AppError]) -> None:
        """End the connection, with an answer where nobody could take it for the answer to something else."""
        if self._is_refused:
            return
        self._is_refused = True
        self._stop_waiting()
        if self.transport.is_closing():
            self.transport.close()
            return
        if self._is_answering and self._state is not _State.BODY:
            # What came before is answered, and then the connection ends.
            self.cycle.keep_alive = False
            return
        is_said = {
            # Whoever has sent nothing asked for nothing.
            _State.IDLE: self._newest is None and problem is not RequestTimeout,
            _State.HEAD: True,
            _State.BODY: self._is_answering and not self.cycle.response_started and not self.pipeline,
        }[self._state]
        if is_said:
            if self._state is _State.BODY:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(_ANSWERS[problem])
        self.transport.close()


def guarded_protocol(settings: HttpSettings) -> type[GuardedProtocol]:
    """Return the protocol class with these limits; uvicorn makes one instance per connection."""

    class Guarded(GuardedProtocol):
        limits = settings
        capacity = Capacity(settings)

    return Guarded
