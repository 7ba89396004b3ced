"""The OAuth popup: off to the provider, back with its answer, and out at the dashboard's callback page."""

from collections.abc import Mapping
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from sandbox.errors import ApiError
from sandbox.pages import html_page
from sandbox.stackone.attempts import Attempt, AttemptStatus
from sandbox.stackone.connectors import Connector
from sandbox.stackone.linking import link_submitted, offered
from sandbox.stackone.parts import TheProject
from sandbox.stackone.project import Project

router = APIRouter()

_OWN_PARAMETERS = frozenset({"redirect_uri", "token", "connection_attempt_id"})
_CALLBACK_PAGE = "/embedded/accounts/callback"
# Where the Hub sends its popup if the page around it sets no app-url, as the vendor's samples do not.
_REAL_DASHBOARD = "https://app.stackone.com"


@router.get("/connect/oauth2/{integration_id}")
async def open_popup(integration_id: str, request: Request, project: TheProject) -> Response:
    """Check the popup's session and attempt, and send it to the provider."""
    try:
        return RedirectResponse(_to_provider(project, integration_id, request.query_params), 302)
    except ApiError as error:
        return _failed(error)


@router.get("/connect/oauth2/{provider}/callback")
async def come_back(provider: str, request: Request, project: TheProject) -> Response:
    """Take the provider's answer, once."""
    try:
        status = _take_answer(project, provider, request.query_params)
    except ApiError as error:
        return _failed(error)
    # Not to the vendor's dashboard, whoever named it: no request leaves the sandbox, and the Hub polls anyway.
    return RedirectResponse(f"{project.config.own_url}{_CALLBACK_PAGE}?{urlencode({'status': status})}", 302)


@router.get(_CALLBACK_PAGE)
async def show_the_end() -> HTMLResponse:
    """Stand in for the dashboard's page on which every popup ends."""
    return HTMLResponse(html_page("You can close this window", "<p>The page that opened it knows the outcome.</p>"))


def _to_provider(project: Project, integration_id: str, query: Mapping[str, str]) -> str:
    session = project.sessions.open(query.get("token", ""))
    attempt = project.attempts.of(session, query.get("connection_attempt_id", ""))
    if attempt.status != "pending":
        raise ApiError(400, "This attempt is over")
    connector = offered(project, session, integration_id)
    if not connector.uses_popup:
        raise ApiError(400, "This connector links through a form")
    if query.get("redirect_uri") not in {
        origin + _CALLBACK_PAGE for origin in (project.config.own_url, _REAL_DASHBOARD)
    }:
        raise ApiError(400, "The redirect_uri is not the dashboard's callback page")
    form = {name: value for name, value in query.items() if name not in _OWN_PARAMETERS}
    ask = {
        "response_type": "code",
        "client_id": "stackone-sandbox",
        "redirect_uri": f"{project.config.own_url}/connect/oauth2/{connector.provider}/callback",
        "state": project.attempts.send_to_provider(attempt, integration_id, form),
    }
    return f"{project.config.provider_url}/authorize?{urlencode(ask)}"


def _take_answer(project: Project, provider: str, query: Mapping[str, str]) -> AttemptStatus:
    attempt = project.attempts.come_back(query.get("state", ""))
    connector = offered(project, attempt.session, attempt.integration_id or "")
    if connector.provider != provider:
        raise ApiError(400, "This answer belongs to another provider")
    error = query.get("error")
    if error is not None:
        project.attempts.fail(attempt, error, query.get("error_description", "The provider gave no reason"))
    elif not project.provider.redeem(query.get("code", "")):
        project.attempts.fail(attempt, "invalid_grant", "The provider did not know the code")
    else:
        _link(project, attempt, connector)
    return attempt.status


def _link(project: Project, attempt: Attempt, connector: Connector) -> None:
    try:
        account = link_submitted(project, attempt.session, connector, attempt.form)
    except ApiError as error:
        # The account may have been deleted while the user was away; whoever polls must not wait for ever.
        project.attempts.fail(attempt, "link_failed", error.message)
    else:
        project.attempts.finish(attempt, account.id)


def _failed(error: ApiError) -> HTMLResponse:
    # Messages are the sandbox's own words, never something out of the request.
    return HTMLResponse(html_page("The connection failed", f"<p>{error.message}</p>"), error.status)
