"""What happens around every request: its log line, its headers, and the answers that no handler gives.

Pure ASGI classes: decorated middleware costs ten times as much and breaks cancellation and context variables.
"""

import time
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import FieldError, Unprocessable
from app.http.problems import problem_response, route_template, status_response, unexpected_response
from app.metrics import Metrics

access_log = structlog.get_logger("app.access")

_FIRST_FAILURE = 400
QUIET_ROUTES = frozenset({"/livez", "/readyz"})
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "strict-transport-security": "max-age=63072000; includeSubDomains",
    "cross-origin-resource-policy": "same-site",
}


class SecurityHeaders:
    """Sets the security headers of an API, and forbids caching any answer (RFC 9111 5.2.2.5)."""

    def __init__(self, app: ASGIApp, *, documentation_paths: frozenset[str] = frozenset()) -> None:
        """`documentation_paths` serve HTML that loads scripts; they keep their own policy."""
        self._app = app
        self._documentation_paths = documentation_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_documentation = scope["path"] in self._documentation_paths

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_security(message["headers"], is_documentation=is_documentation)
            await send(message)

        await self._app(scope, receive, send_with_headers)


_SECURITY: Final = tuple(
    (name.encode(), value.encode()) for name, value in {**SECURITY_HEADERS, "cache-control": "no-store"}.items()
)
_VARY: Final = ("Authorization", "Cookie", "Origin")
_VARY_ALONE: Final = (b"vary", ", ".join(_VARY).encode())


def _with_security(headers: Sequence[tuple[bytes, bytes]], *, is_documentation: bool) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers with those that are missing; by hand, since every answer goes through here."""
    names = {name for name, _ in headers}
    added = [
        (name, value)
        for name, value in _SECURITY
        if name not in names and not (is_documentation and name == b"content-security-policy")
    ]
    if b"vary" not in names:
        return [*headers, *added, _VARY_ALONE]
    varied = MutableHeaders(raw=[*headers, *added])
    for name in _VARY:
        varied.add_vary_header(name)
    return varied.raw


class WholePaths:
    """Answers 422 for a path that ends in a newline, which the framework's patterns take for the path without it.

    Otherwise a request could get past a proxy that allows only certain paths.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"].endswith("\n"):
            error = FieldError("path", "must not end in a newline")
            await problem_response(Unprocessable(errors=[error]))(scope, receive, send)
            return
        await self._app(scope, receive, send)


class PlainFailuresAsProblems:
    """Turns plain-text failures of the framework into problem+json.

    A body over the limit and a refused CORS preflight are answered before any exception handler could act.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        replaced = False

        async def send_problem(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] >= _FIRST_FAILURE:
                headers = Headers(raw=message["headers"])
                replaced = headers.get("content-type", "").startswith("text/plain")
                if replaced:
                    await status_response(message["status"], headers)(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, receive, send_problem)


class AccessLog:
    """Writes one line per request, by route template: a path or query may hold ids and secrets.

    It also answers what nothing else caught. The framework's own place for that lies outside all middleware, where
    the answer would lack the request id and the headers.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Count into `metrics`."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None
        started = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except ClientDisconnect:
            # Whoever hangs up in the middle of a request is told nothing, and nothing of ours has failed.
            pass
        except Exception as error:
            if status is not None:
                raise
            await unexpected_response(error, route_template(scope))(scope, receive, send_and_note)
        finally:
            seconds = time.perf_counter() - started
            route = route_template(scope)
            # The client chooses the method too: unknown ones share a label, or anybody could make metric series.
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.requests.labels(method, route, str(status or "disconnected")).observe(seconds)
            if route not in QUIET_ROUTES:
                access_log.info("request", method=method, route=route, status=status, seconds=round(seconds, 4))


METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
