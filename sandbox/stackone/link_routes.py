"""The page behind an auth link: the Hub on a page of its own, for somebody who got the link by e-mail."""

from html import escape
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from sandbox.errors import ApiError
from sandbox.pages import html_page
from sandbox.stackone.parts import TheProject
from sandbox.stackone.project import Project

router = APIRouter(prefix="/embedded")

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; font-src data:;"
        " style-src 'self' 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin-allow-popups",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}


@router.get("/integrations")
async def open_auth_link(project: TheProject, token: str = "") -> HTMLResponse:
    """Show the Hub for the session of the link."""
    try:
        project.sessions.open(token)
    except ApiError:
        gone = "<p>Ask whoever sent it for a new one.</p>"
        return HTMLResponse(html_page("This link has expired", gone), 401, headers=_HEADERS)
    if _web_component(project) is None:
        missing = (
            "<p>The Hub is not built here. Its page needs Node 20.19 or newer: install it, run"
            " <code>make demo</code> again, and reload.</p>"
        )
        return HTMLResponse(html_page("Connect your tools", missing), headers=_HEADERS)
    own = escape(project.config.own_url)
    # Its footer's links would have the browser look up the vendor's name.
    attributes = f'token="{escape(token)}" base-url="{own}" app-url="{own}" show-footer-links="false"'
    lead = "<p>Your credentials go to the provider. Whoever sent you this link does not see them.</p>"
    hub = f"{lead}<stackone-hub {attributes}></stackone-hub>"
    script = '<script defer src="/embedded/webcomponent.js"></script>'
    return HTMLResponse(html_page("Connect your tools", hub, head=script), headers=_HEADERS)


@router.get("/webcomponent.js")
async def web_component(project: TheProject) -> Response:
    """Serve the vendor's own web component."""
    path = _web_component(project)
    if path is None:
        raise ApiError(404, "The web component is not built")
    return FileResponse(path, media_type="text/javascript")


def _web_component(project: Project) -> Path | None:
    # Looked up on each request: the page may be built while the sandbox runs.
    path = Path(project.config.web_component) if project.config.web_component else None
    return path if path is not None and path.is_file() else None
