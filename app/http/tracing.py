"""Requests as spans: which route, how it was answered. Added to the app only where traces are on."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.middleware import METHODS, QUIET_ROUTES
from app.http.problems import route_template
from app.traces import Traces

_FIRST_ERROR = 500


class Traced:
    """Records each request but for health checks, as part of the caller's trace where that comes with it."""

    def __init__(self, app: ASGIApp, *, traces: Traces) -> None:
        """Record in `traces`."""
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in QUIET_ROUTES:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "other"
        carried = [value for name, value in scope["headers"] if name == b"traceparent"]
        # Two of them are none (W3C Trace Context, 3.2).
        traceparent = carried[0].decode("latin-1") if len(carried) == 1 else None
        with self._traces.served(method, traceparent, http__request__method=method) as span:

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = route_template(scope)
                    span.rename(f"{method} {route}")
                    span.note("http.route", route)
                    span.note("http.response.status_code", message["status"])
                    if message["status"] >= _FIRST_ERROR:
                        span.failed(str(message["status"]))
                await send(message)

            await self._app(scope, receive, send_and_note)
