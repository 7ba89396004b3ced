"""CORS: any page may call the Hub's API, pages of localhost may mint a session, and nothing else is for browsers."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_LOCALHOST = r"https?://(localhost|127\.0\.0\.1)(:\d+)?"


class Cors:
    """ASGI middleware that answers preflights and marks the answers that a page may read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._hub = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["content-type", "x-hub-session-token", "x-hub-version"],
        )
        self._mint = CORSMiddleware(
            app, allow_origin_regex=_LOCALHOST, allow_methods=["POST"], allow_headers=["authorization", "content-type"]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call under the policy of its path."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path.startswith("/hub/"):
            await self._hub(scope, receive, send)
        elif path == "/connect_sessions":
            await self._mint(scope, receive, send)
        else:
            await self._app(scope, receive, send)
