"""What a route of the emulator may ask for."""

from typing import Annotated

from fastapi import Depends, Header, Query, Request

from sandbox.errors import ApiError
from sandbox.stackone.gate import refuse_nameless_clients
from sandbox.stackone.project import Project
from sandbox.stackone.sessions import ConnectSession


async def _project(request: Request) -> Project:
    project = request.app.state.external
    if not isinstance(project, Project):
        raise TypeError(project)
    return project


TheProject = Annotated[Project, Depends(_project)]
Page = Annotated[int, Query(ge=0)]
PageSize = Annotated[int, Query(ge=1)]


async def require_api_key(
    request: Request, project: TheProject, authorization: Annotated[str | None, Header()] = None
) -> None:
    """Let only the project's key through, as often as it may. Raises ApiError 401, 403 or 429."""
    refuse_nameless_clients(request)
    project.api_key.admit(authorization, colon_needed=project.decisions.basic_without_colon == "refuse")
    project.limits.count()


async def _hub_session(
    project: TheProject, x_hub_session_token: Annotated[str | None, Header()] = None
) -> ConnectSession:
    if not x_hub_session_token:
        raise ApiError(401, "Missing session token")
    return project.sessions.open(x_hub_session_token)


HubSession = Annotated[ConnectSession, Depends(_hub_session)]
