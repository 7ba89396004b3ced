"""POST /connect_sessions and POST /connect_sessions/authenticate."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from sandbox.bodies import Rule, checked, read_object
from sandbox.errors import ApiError
from sandbox.stackone.parts import TheProject, require_api_key
from sandbox.stackone.project import Project

router = APIRouter(prefix="/connect_sessions", dependencies=[Depends(require_api_key)])


@router.post("", status_code=201)
async def create_connect_session(request: Request, project: TheProject) -> JSONResponse:
    """Mint a session token and an auth link."""
    body = await read_object(request)
    _require_owned_account(project, body)
    session = project.sessions.create(body)
    link = f"{project.config.own_url}/embedded/integrations?token={session.token}"
    minted = {"token": session.token, "auth_link_url": link, "latest_connection_attempt": None}
    return JSONResponse(session.to_json(project.config.project_id) | minted, 201)


@router.post("/authenticate", status_code=201)
async def authenticate_connect_session(request: Request, project: TheProject) -> JSONResponse:
    """Read a session by its token."""
    body = checked(await read_object(request), {"token": Rule(required=True)})
    # What a dead or foreign token gets is not documented; 401 is what the Hub gets for it.
    session = project.sessions.open(str(body["token"]))
    attempt = project.attempts.latest(session)
    latest = {"latest_connection_attempt": attempt.for_the_backend() if attempt else None}
    return JSONResponse(session.to_json(project.config.project_id) | latest, 201)


def _require_owned_account(project: Project, body: dict[str, object]) -> None:
    # Inferred: whether StackOne checks this is not documented. A stranger's account gets the answer of a missing one.
    account_id = body.get("account_id")
    if not isinstance(account_id, str):
        return
    account = project.accounts.find(account_id)
    if account is None or account.origin_owner_id != body.get("origin_owner_id"):
        raise ApiError(404, "Account not found")
