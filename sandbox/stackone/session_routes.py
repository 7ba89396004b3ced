"""POST /connect_sessions and POST /connect_sessions/authenticate."""

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from sandbox.bodies import Body, JsonObject
from sandbox.errors import ApiError
from sandbox.stackone.decisions import altered
from sandbox.stackone.parts import TheProject, require_api_key
from sandbox.stackone.project import Project
from sandbox.stackone.sessions import ConnectSession, SessionRequest

router = APIRouter(prefix="/connect_sessions", dependencies=[Depends(require_api_key)])


class _Token(Body):
    token: str


@router.post("", status_code=201)
async def create_connect_session(body: SessionRequest, project: TheProject) -> JSONResponse:
    """Mint a session token and an auth link."""
    if body.account_id is not None:
        # Inferred: that StackOne checks this is not documented. A stranger's account is answered as a missing one.
        account = project.accounts.get(body.account_id)
        if account.origin_owner_id != body.origin_owner_id:
            raise ApiError(404, "Account not found")
    _refuse_what_cannot_be_linked(project, body)
    session = project.sessions.create(body)
    link = f"{project.config.own_url}/embedded/integrations?token={session.token}"
    minted = {"token": session.token, "auth_link_url": link, "latest_connection_attempt": None}
    return JSONResponse(_written(project, session, minted), 201)


@router.post("/authenticate", status_code=201)
async def authenticate_connect_session(body: _Token, project: TheProject) -> JSONResponse:
    """Read a session by its token."""
    # What a dead or foreign token gets is not documented; 401 is what the Hub gets for it.
    session = project.sessions.open(body.token)
    attempt = project.attempts.latest(session)
    latest = {"latest_connection_attempt": attempt.for_the_backend() if attempt else None}
    return JSONResponse(_written(project, session, latest), 201)


def _refuse_what_cannot_be_linked(project: Project, body: SessionRequest) -> None:
    decisions = project.decisions
    profile = body.connector_profile_id or body.integration_id
    if profile is not None:
        config = project.auth_configs.get(profile)
        fits = config is not None and config.active and body.provider in (None, config.provider)
        if not fits and decisions.unknown_profile == "refuse":
            raise ApiError(decisions.refusal_status, "No enabled connector profile of this id")
    elif body.provider is not None and decisions.unknown_provider == "refuse":
        configs = project.auth_configs.values()
        if not any(config.active for config in configs if config.provider == body.provider and config.default):
            raise ApiError(decisions.refusal_status, "No enabled integration of this provider")


def _written(project: Project, session: ConnectSession, more: JsonObject) -> JsonObject:
    answer = session.to_json(project.config.project_id) | more
    if project.decisions.organization_id == "string":
        answer["organization_id"] = str(answer["organization_id"])
    return altered(answer, project.lies.session)
