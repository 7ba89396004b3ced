"""The third origin of an OAuth popup: a provider's consent page with Approve and Deny."""

import secrets
from collections import OrderedDict
from html import escape
from typing import Annotated
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from sandbox.pages import html_page

_KEPT_CODES = 1_000


class Provider:
    """The authorization codes that are out; each may be redeemed once."""

    def __init__(self, *, registered_origin: str) -> None:
        """Send codes to `registered_origin` only, as a registered OAuth app would."""
        self._registered = registered_origin + "/connect/oauth2/"
        self._codes: OrderedDict[str, None] = OrderedDict()

    def may_return_to(self, redirect_uri: str) -> bool:
        """Tell whether a code may go there."""
        return redirect_uri.startswith(self._registered)

    def issue(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = None
        if len(self._codes) > _KEPT_CODES:
            self._codes.popitem(last=False)
        return code

    def redeem(self, code: str) -> bool:
        """Use a code up; tell whether it was good."""
        return self._codes.pop(code, True) is None


def create_provider(provider: Provider) -> FastAPI:
    """Return the app that serves the consent page."""
    app = FastAPI(openapi_url=None)

    @app.get("/authorize")
    async def ask(
        client_id: str = "", redirect_uri: str = "", state: Annotated[str, Query(max_length=512)] = ""
    ) -> Response:
        if not provider.may_return_to(redirect_uri):
            return HTMLResponse(html_page("Sign-in failed", "<p>This redirect_uri is not registered.</p>"), 400)
        hidden = "".join(
            f'<input type="hidden" name="{name}" value="{escape(value)}">'
            for name, value in (("redirect_uri", redirect_uri), ("state", state))
        )
        form = (
            f"<p><b>{escape(client_id)}</b> wants to read your data. It will be able to</p>"
            "<ul><li>read people, teams and records</li><li>go on until you take it back here</li></ul>"
            f'<form method="post" action="/authorize">{hidden}'
            '<button class="primary" name="decision" value="approve">Approve</button> '
            '<button name="decision" value="deny">Deny</button></form>'
        )
        return HTMLResponse(html_page("Sandbox provider", form))

    @app.post("/authorize")
    async def decide(request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
        redirect_uri = form.get("redirect_uri", "")
        if not provider.may_return_to(redirect_uri):
            return HTMLResponse(html_page("Sign-in failed", "<p>This redirect_uri is not registered.</p>"), 400)
        outcome = {"state": form.get("state", "")}
        if form.get("decision") == "approve":
            outcome["code"] = provider.issue()
        else:
            outcome |= {"error": "access_denied", "error_description": "The user denied access"}
        return RedirectResponse(f"{redirect_uri}?{urlencode(outcome)}", 303)

    return app
