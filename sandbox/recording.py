"""The newest requests outside /_sandbox, as they came, with their headers (the sandbox's secrets are fake)."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.bounded_log import BoundedLog
from sandbox.clock import Clock, iso
from sandbox.errors import error_body

KEPT_REQUESTS = 10_000
LARGEST_BODY = 1_048_576
_LARGEST_KEPT_BODY = 65_536

RequestHook = Callable[[str, str], None]
"""Called with method and path before each request is served; tests assert in it."""


@dataclass
class Received:
    """One request, and the status that it was answered with (None while, or because, nothing was answered)."""

    n: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    text: str
    at: str
    status: int | None = None

    def to_json(self) -> dict[str, object]:
        """Write the entry out; `body` is parsed where it is JSON, `text` is what was on the wire."""
        return {**asdict(self), "body": _parsed(self.text)}


@dataclass
class RequestLog:
    """The newest requests, and a hook that sees each of them first."""

    entries: BoundedLog[Received] = field(default_factory=lambda: BoundedLog(KEPT_REQUESTS))
    hook: RequestHook | None = None


class RecordRequests:
    """ASGI middleware that reads the whole body, writes the request down and passes it on."""

    def __init__(self, app: ASGIApp, *, log: RequestLog, clock: Clock) -> None:
        self._app = app
        self._log = log
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record one request, unless it is a switch."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            refusal = JSONResponse(error_body(413, "The body is too large", self._clock), 413)
            await refusal(scope, receive, send)
            return
        replay = _replay(body, receive)
        if scope["path"].startswith("/_sandbox"):
            await self._app(scope, replay, send)
            return
        entry = self._log.entries.append(lambda n: _entry(n, scope, body, iso(self._clock())))
        if self._log.hook is not None:
            self._log.hook(entry.method, entry.path)

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
            await send(message)

        await self._app(scope, replay, note_status)


async def _read_body(receive: Receive) -> bytes | None:
    chunks: list[bytes] = []
    total = 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        total += len(chunk)
        if total > LARGEST_BODY:
            return None
        chunks.append(chunk)
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [body]

    async def replayed() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        # After the body comes the disconnect, which a hanging fault waits for.
        return await receive()

    return replayed


def _entry(n: int, scope: Scope, body: bytes, at: str) -> Received:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Received(
        n=n,
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        text=body[:_LARGEST_KEPT_BODY].decode("utf-8", "replace"),
        at=at,
    )


def _parsed(text: str) -> object:
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
