"""The private API that the Hub calls from a browser, opened by a session token."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from sandbox.bodies import Body, JsonObject
from sandbox.errors import ApiError
from sandbox.stackone.accounts import Account
from sandbox.stackone.connectors import Connector, connector_for
from sandbox.stackone.forms import connector_config, redacted
from sandbox.stackone.linking import link_submitted, offered
from sandbox.stackone.parts import HubSession, TheProject
from sandbox.stackone.project import Project
from sandbox.stackone.sessions import ConnectSession

router = APIRouter(prefix="/hub")


class _Form(Body):
    integration_id: str = ""
    credentials: JsonObject


class _Token(Body):
    token: str


@router.get("/settings")
async def settings(session: HubSession, project: TheProject) -> JSONResponse:
    """Say whether the Hub opens in edit mode."""
    edited = project.account_edited_by(session)
    answer: dict[str, object] = {"enabled_features": []}
    if edited is not None:
        answer["existing_account_id"] = edited.id
    return JSONResponse(answer)


@router.get("/connectors")
async def list_connectors(session: HubSession, project: TheProject, provider: str | None = None) -> JSONResponse:
    """List what the picker may show."""
    integrations = [connector.for_the_hub() for connector in project.connectors_for(session, provider)]
    return JSONResponse({"integrations": integrations, "external_trigger_token": session.external_trigger_token})


@router.get("/connectors/{integration_id}")
async def get_connector(integration_id: str, session: HubSession, project: TheProject) -> JSONResponse:
    """Describe one connector's form."""
    return JSONResponse(connector_config(offered(project, session, integration_id), session.type))


@router.get("/accounts/{account_id}")
async def get_account(account_id: str, session: HubSession, project: TheProject) -> JSONResponse:
    """Show an account to the form that edits it, secrets redacted."""
    account = _editable(project, session, account_id)
    connector = _connector_of(project, account)
    return JSONResponse(
        {
            "secureId": account.id,
            "provider": account.provider,
            "setupInformation": account.setup_information,
            "secrets": redacted(account.secrets),
            "version": connector.version,
            "authConfigKey": connector.authentication_key,
            "environment": connector.environment,
            "integrationId": connector.integration_id,
        }
    )


@router.post("/accounts", status_code=201)
async def submit_form(body: _Form, session: HubSession, project: TheProject) -> JSONResponse:
    """Link from a form; under an edit session this updates the account of the session."""
    connector = offered(project, session, body.integration_id)
    if connector.uses_popup:
        raise ApiError(400, "This connector links through its provider's page")
    account = link_submitted(project, session, connector, body.credentials)
    return JSONResponse({"id": account.id, "provider": account.provider}, 201)


@router.patch("/accounts/{account_id}")
async def submit_edit(account_id: str, body: _Form, session: HubSession, project: TheProject) -> JSONResponse:
    """Save an edited form. Its integration_id is ignored: the Hub sends the first one of the provider."""
    account = _editable(project, session, account_id)
    account = link_submitted(project, session, _connector_of(project, account), body.credentials, account_id=account.id)
    return JSONResponse({"id": account.id, "provider": account.provider})


@router.post("/connection_attempts", status_code=201)
async def begin_attempt(body: _Token, session: HubSession, project: TheProject) -> JSONResponse:
    """Begin an OAuth attempt."""
    if body.token != session.token:
        raise ApiError(401, "Invalid or expired session token")
    return JSONResponse({"id": project.attempts.begin(session).id}, 201)


@router.get("/connection_attempts/{attempt_id}")
async def poll_attempt(attempt_id: str, session: HubSession, project: TheProject) -> JSONResponse:
    """Say how far an attempt is."""
    return JSONResponse(project.attempts.of(session, attempt_id).for_the_hub())


@router.delete("/connection_attempts/{attempt_id}", status_code=204)
async def cancel_attempt(attempt_id: str, session: HubSession, project: TheProject) -> Response:
    """Give an attempt up."""
    project.attempts.cancel(project.attempts.of(session, attempt_id))
    return Response(status_code=204)


def _editable(project: Project, session: ConnectSession, account_id: str) -> Account:
    # A session may edit its own owner's accounts, and only the one it names if it names one.
    account = project.accounts.get(account_id)
    if account.origin_owner_id != session.origin_owner_id or session.account_id not in (None, account_id):
        raise ApiError(404, "Account not found")
    return account


def _connector_of(project: Project, account: Account) -> Connector:
    connector = project.auth_configs.get(account.connector_profile_id or "") or connector_for(account.provider)
    if connector is None:
        raise ApiError(404, "No connector for this account")
    return connector
