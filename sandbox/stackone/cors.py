"""CORS as the Hub needs it, and only where it calls: the API itself is not for browsers."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class HubCors:
    """ASGI middleware that lets any page call /hub/*."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["content-type", "x-hub-session-token", "x-hub-version"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer preflights and mark answers under /hub/."""
        is_hub = scope["type"] == "http" and scope["path"].startswith("/hub/")
        await (self._open if is_hub else self._app)(scope, receive, send)
