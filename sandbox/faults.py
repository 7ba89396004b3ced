"""Faults on request: answers that are slow, wrong, missing, or cut off in the middle."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.bodies import Body
from sandbox.clock import Clock
from sandbox.errors import error_body

_FIRST_ERROR = 400
_BODILESS = frozenset({204, 304})


class Fault(Body):
    """What happens to the next `times` calls (null: until cleared) whose method and path prefix match.

    `shape` is who wrote an answer without a body of its own: StackOne, or something in front of it.
    Without `status` and `body` the call is really served: a delay or a cut then loses an answer, not an effect.
    """

    null_is_a_value: ClassVar[frozenset[str]] = frozenset({"times"})

    method: str = "*"
    path: str = "/"
    times: Annotated[int, Field(ge=1)] | None = 1
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    body: Any = None
    shape: Literal["stackone", "gateway", "html"] = "stackone"
    headers: dict[str, str | int] = Field(default_factory=dict)
    delay_ms: Annotated[float, Field(ge=0)] = 0
    hang: bool = False
    cut: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Tell whether this call is one of those that the fault is for."""
        return self.method.upper() in ("", "*", method) and path.startswith(self.path)

    @property
    def replaces_the_answer(self) -> bool:
        """Tell whether the fault's own answer replaces the real one."""
        return self.status is not None or self.body is not None


@dataclass
class Waiting:
    """A fault that is still to happen, so many times more."""

    id: int
    fault: Fault
    left: int | None

    def to_json(self) -> dict[str, object]:
        """Write the fault out as the switch shows it."""
        return {**self.fault.model_dump(), "id": self.id, "times": self.left}


@dataclass
class Faults:
    """The faults that are still to happen, in the order in which they were added."""

    waiting: list[Waiting] = field(default_factory=list)
    _count: int = 0

    def add(self, fault: Fault | Mapping[str, object]) -> Waiting:
        """Keep a fault until its calls have come."""
        wanted = fault if isinstance(fault, Fault) else Fault.model_validate(fault)
        self._count += 1
        self.waiting.append(Waiting(self._count, wanted, wanted.times))
        return self.waiting[-1]

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault for this call and count it down."""
        found = next((waiting for waiting in self.waiting if waiting.fault.matches(method, path)), None)
        if found is None:
            return None
        if found.left is not None:
            found.left -= 1
            if found.left == 0:
                self.waiting.remove(found)
        return found.fault

    def clear(self) -> None:
        """Forget every fault."""
        self.waiting.clear()


class InjectFaults:
    """ASGI middleware that lets the faults happen; the switches themselves are never hit."""

    def __init__(self, app: ASGIApp, *, faults: Faults, clock: Clock) -> None:
        self._app = app
        self._faults = faults
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call, with the fault that is waiting for it."""
        is_switch = scope["type"] != "http" or scope["path"].startswith("/_sandbox")
        fault = None if is_switch else self._faults.take(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.delay_ms / 1000)
        if fault.hang:
            await _wait_for_the_client_to_leave(receive)
            return
        answer = _Answer()
        if fault.replaces_the_answer:
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

    def add_headers(self, headers: Mapping[str, str | int]) -> None:
        added = [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]
        replaced = {name for name, _value in added}
        kept = [item for item in self.start.get("headers", []) if item[0] not in replaced]
        self.start = {**self.start, "headers": [*kept, *added]}

    async def send(self, send: Send, *, cut: bool) -> None:
        # The headers promise the whole length: a body that ends before makes the server drop the connection.
        body = self.body[: len(self.body) // 2] if cut else self.body
        await send(self.start)
        await send({"type": "http.response.body", "body": body, "more_body": cut})


async def _wait_for_the_client_to_leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _own_answer(fault: Fault, clock: Clock) -> tuple[Message, bytes]:
    status = fault.status or 200
    if status in _BODILESS:
        return {"type": "http.response.start", "status": status, "headers": []}, b""
    body, content_type = _default(fault.shape, status, clock) if fault.body is None else _written(fault.body)
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    return {"type": "http.response.start", "status": status, "headers": headers}, body


def _default(shape: str, status: int, clock: Clock) -> tuple[bytes, bytes]:
    if shape == "html":
        return f"<html><body><h1>{status}</h1></body></html>".encode(), b"text/html; charset=utf-8"
    if shape == "gateway":
        # What an API gateway says for itself: StackOne's own errors have a statusCode.
        return _written({"message": "no Route matched with those values"})
    return _written(error_body(status, f"Injected {status}", clock) if status >= _FIRST_ERROR else {})


def _written(body: object) -> tuple[bytes, bytes]:
    if isinstance(body, str):
        # Text is sent as it stands, so that broken JSON and HTML error pages can be played.
        return body.encode(), b"text/plain; charset=utf-8"
    return json.dumps(body).encode(), b"application/json"
