"""Neighbours that misbehave on request: slow, failing, lying, silent, or cut off in the middle."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.bodies import Rule, checked
from sandbox.clock import Clock
from sandbox.errors import ApiError, error_body

_RULES = {
    "method": Rule(),
    "path": Rule(),
    "times": Rule(kind="integer", at_least=1),
    "status": Rule(kind="integer", at_least=200),
    "body": Rule(kind="anything"),
    "headers": Rule(kind="object"),
    "delay_ms": Rule(kind="number", at_least=0),
    "hang": Rule(kind="boolean"),
    "cut": Rule(kind="boolean"),
}
_HIGHEST_STATUS = 599
_FIRST_ERROR = 400
_BODILESS = frozenset({204, 304})


@dataclass
class Fault:
    """What happens to the next `times` calls (None: until cleared) whose method and path prefix match.

    Without `status` and `body` the call is really served: a delay or a cut then loses an answer, not an effect.
    """

    number: int
    method: str | None = None
    path: str = "/"
    times: int | None = 1
    status: int | None = None
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_ms: float = 0
    hang: bool = False
    cut: bool = False
    has_body: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Tell whether this call is one of those that were asked for."""
        return (self.method is None or self.method == method) and path.startswith(self.path)

    @property
    def answers_itself(self) -> bool:
        """Tell whether the fault's own answer replaces the real one."""
        return self.status is not None or self.has_body

    def to_json(self) -> dict[str, object]:
        """Write the fault out as the switch shows it."""
        return {
            "id": self.number,
            "method": self.method,
            "path": self.path,
            "times": self.times,
            "status": self.status,
            "body": self.body,
            "headers": self.headers,
            "delay_ms": self.delay_ms,
            "hang": self.hang,
            "cut": self.cut,
        }


class Faults:
    """The faults that are still to happen, in the order in which they were asked for."""

    def __init__(self) -> None:
        """Start with none."""
        self.waiting: list[Fault] = []
        self._count = 0

    def add(self, wish: dict[str, object]) -> Fault:
        """Take one fault from the body of the switch. Raises ApiError 400 for a wish that makes no sense."""
        checked(wish, _RULES)
        status = cast("int | None", wish.get("status"))
        if status is not None and status > _HIGHEST_STATUS:
            raise ApiError(400, "Bad Request", errors=["status must not be more than 599"])
        method = cast("str | None", wish.get("method"))
        headers = cast("dict[str, object]", wish.get("headers") or {})
        self._count += 1
        fault = Fault(
            number=self._count,
            method=None if method in (None, "", "*") else str(method).upper(),
            path=cast("str", wish.get("path") or "/"),
            times=cast("int | None", wish.get("times", 1)),
            status=status,
            body=wish.get("body"),
            headers={name.lower(): str(value) for name, value in headers.items()},
            delay_ms=cast("float", wish.get("delay_ms") or 0),
            hang=bool(wish.get("hang")),
            cut=bool(wish.get("cut")),
            has_body=wish.get("body") is not None,
        )
        self.waiting.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault for this call and count it down."""
        fault = next((fault for fault in self.waiting if fault.matches(method, path)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self.waiting.remove(fault)
        return fault

    def clear(self) -> None:
        """Behave well again."""
        self.waiting.clear()


class InjectFaults:
    """ASGI middleware that lets the faults happen; the switches themselves are never hit."""

    def __init__(self, app: ASGIApp, *, faults: Faults, clock: Clock) -> None:
        """Wrap `app`."""
        self._app = app
        self._faults = faults
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call, badly if that was asked for."""
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox"):
            await self._app(scope, receive, send)
            return
        fault = self._faults.take(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
            return
        if fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        if fault.hang:
            await _wait_for_the_client_to_leave(receive)
            return
        answer = _Answer()
        if fault.answers_itself:
            answer.start, answer.body = _own_answer(fault, self._clock)
        else:
            await self._app(scope, receive, answer.keep)
        answer.add_headers(fault.headers)
        await answer.send(send, cut=fault.cut)


class _Answer:
    """A whole answer, held back until it is known how much of it may leave."""

    def __init__(self) -> None:
        self.start: Message = {"type": "http.response.start", "status": 500, "headers": []}
        self.body = b""

    async def keep(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def add_headers(self, headers: dict[str, str]) -> None:
        kept = [(name, value) for name, value in self.start.get("headers", []) if name.decode("latin-1") not in headers]
        added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.start = {**self.start, "headers": [*kept, *added]}

    async def send(self, send: Send, *, cut: bool) -> None:
        await send(self.start)
        if cut:
            # The length in the headers is a promise; returning without keeping it makes the server drop the line.
            await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
            return
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


async def _wait_for_the_client_to_leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _own_answer(fault: Fault, clock: Clock) -> tuple[Message, bytes]:
    status = fault.status or 200
    body, content_type = _written(fault.body if fault.has_body else _default_body(status, clock))
    if status in _BODILESS:
        return {"type": "http.response.start", "status": status, "headers": []}, b""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    return {"type": "http.response.start", "status": status, "headers": headers}, body


def _default_body(status: int, clock: Clock) -> dict[str, object]:
    return error_body(status, f"Injected {status}", clock) if status >= _FIRST_ERROR else {}


def _written(body: object) -> tuple[bytes, bytes]:
    if isinstance(body, str):
        # Text is sent as it stands, so that broken JSON and HTML error pages can be played.
        return body.encode(), b"text/plain; charset=utf-8"
    return json.dumps(body).encode(), b"application/json"
