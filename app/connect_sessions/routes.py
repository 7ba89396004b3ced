"""Connect sessions over HTTP: minting by a signed-in user, or by a service for an owner."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.connect_sessions.connectors import list_connectors
from app.connect_sessions.end import end_session
from app.connect_sessions.listing import list_sessions
from app.connect_sessions.mint import mint
from app.connect_sessions.poll import poll_session
from app.connect_sessions.queries import ConnectorsQuery, SessionsQuery
from app.connect_sessions.resolve import resolve_session
from app.connect_sessions.schemas import (
    AuthLink,
    ConnectorPage,
    OwnerConnectorPage,
    OwnerSessionRequest,
    OwnerSessionStatus,
    OwnerSessionToken,
    SessionPage,
    SessionPoll,
    SessionRequest,
    SessionStatus,
    SessionToken,
)
from app.errors import BeingDisconnected, Conflict, Forbidden, NotFound, UpstreamRejected
from app.http.callers import EndUserDep, MintingUserDep, RuntimeDep, requires
from app.http.problems import OF_SERVICES, OF_USERS, WITH_BODY, WITH_PARAMETERS, documented
from app.identity.caller import Scope, Service
from app.inputs import OwnerId, ShortText
from app.limits import Rate
from app.policy.rules import Channel

browser = APIRouter(prefix="/v1/connect-sessions", tags=["browser"])
catalogue = APIRouter(prefix="/v1/connectors", tags=["browser"])
service = APIRouter(prefix="/v1/owners/{owner_id}", tags=["service"])

AccountReader = Annotated[Service, Depends(requires(Scope.ACCOUNTS_READ))]
Connectors = Annotated[ConnectorsQuery, Query()]
SessionWriter = Annotated[Service, Depends(requires(Scope.SESSIONS_WRITE))]


@browser.post(
    "",
    status_code=201,
    operation_id="createConnectSession",
    summary="Open a connect session for yourself: a token for the Hub",
    responses=documented(*OF_USERS, *WITH_BODY, Forbidden, NotFound, Conflict, BeingDisconnected, UpstreamRejected),
)
async def open_own_session(
    user: MintingUserDep, runtime: RuntimeDep, body: SessionRequest | None = None
) -> SessionToken:
    body = body or SessionRequest()
    return SessionToken.of(await mint(runtime, user.owner, body.request(), Channel.BROWSER))


@browser.get(
    "/{session_id}",
    operation_id="getConnectSession",
    summary="Get what became of one of your sessions",
    responses=documented(*OF_USERS, *WITH_PARAMETERS, NotFound),
)
async def get_own_session(session_id: ShortText, user: EndUserDep, runtime: RuntimeDep) -> SessionStatus:
    return SessionStatus.of(await resolve_session(runtime, user.owner_id, session_id))


@service.get(
    "/connect-sessions",
    operation_id="listOwnerConnectSessions",
    summary="List an owner's sessions and auth links, the newest first",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS),
)
async def list_owner_sessions(
    owner_id: OwnerId, _caller: SessionWriter, runtime: RuntimeDep, query: Annotated[SessionsQuery, Query()]
) -> SessionPage:
    sessions, has_more = await list_sessions(runtime, owner_id, query)
    return SessionPage.of(sessions, runtime.clock.now(), has_more=has_more)


@service.get(
    "/connect-sessions/{session_id}",
    operation_id="getOwnerConnectSession",
    summary="Get what became of an owner's session",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def get_owner_session(
    owner_id: OwnerId,
    session_id: ShortText,
    _caller: SessionWriter,
    runtime: RuntimeDep,
) -> OwnerSessionStatus:
    return OwnerSessionStatus.of_owner(await resolve_session(runtime, owner_id, session_id), runtime.clock.now())


@service.delete(
    "/connect-sessions/{session_id}",
    operation_id="endOwnerConnectSession",
    summary="End a session or an auth link: it is no longer counted, nor is an account credited to it",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def end_owner_session(
    owner_id: OwnerId, session_id: ShortText, caller: SessionWriter, runtime: RuntimeDep
) -> OwnerSessionStatus:
    session = await end_session(runtime, owner_id, session_id, actor=caller.actor)
    return OwnerSessionStatus.of_owner(session, runtime.clock.now())


@service.post(
    "/connect-sessions/{session_id}/poll",
    operation_id="pollOwnerConnectSession",
    summary="Ask StackOne what became of an owner's session; the token is used for this and not stored",
    responses=documented(*OF_SERVICES, *WITH_BODY, NotFound, UpstreamRejected),
)
async def poll_owner_session(
    owner_id: OwnerId, session_id: ShortText, body: SessionPoll, caller: SessionWriter, runtime: RuntimeDep
) -> OwnerSessionStatus:
    owner = caller.on_behalf_of(owner_id, None, None)
    session, upstream = await poll_session(runtime, owner, session_id, body.token.get_secret_value())
    return OwnerSessionStatus.of_owner(session, runtime.clock.now(), upstream)


@service.post(
    "/connect-sessions",
    status_code=201,
    operation_id="createOwnerConnectSession",
    summary="Open a connect session for an owner",
    responses=documented(*OF_SERVICES, *WITH_BODY, Forbidden, NotFound, Conflict, BeingDisconnected, UpstreamRejected),
)
async def open_owner_session(
    owner_id: OwnerId,
    caller: SessionWriter,
    runtime: RuntimeDep,
    body: OwnerSessionRequest | None = None,
) -> OwnerSessionToken:
    await runtime.limiter.take(Rate.MINT_PER_OWNER, owner_id)
    body = body or OwnerSessionRequest()
    owner = caller.on_behalf_of(owner_id, body.origin_owner_name, body.origin_username)
    return OwnerSessionToken.of(await mint(runtime, owner, body.request(), Channel.SERVICE))


@service.post(
    "/auth-links",
    status_code=201,
    operation_id="createOwnerAuthLink",
    summary="Make a link with which a person can link an account for an owner, by e-mail for example",
    responses=documented(*OF_SERVICES, *WITH_BODY, Forbidden, NotFound, Conflict, BeingDisconnected, UpstreamRejected),
)
async def make_auth_link(
    owner_id: OwnerId,
    caller: SessionWriter,
    runtime: RuntimeDep,
    body: OwnerSessionRequest | None = None,
) -> AuthLink:
    await runtime.limiter.take(Rate.MINT_PER_OWNER, owner_id)
    body = body or OwnerSessionRequest()
    owner = caller.on_behalf_of(owner_id, body.origin_owner_name, body.origin_username)
    return AuthLink.of(await mint(runtime, owner, body.request(), Channel.AUTH_LINK))


@browser.post(
    "/{session_id}/poll",
    operation_id="pollConnectSession",
    summary="Ask StackOne what became of one of your sessions; the token is used for this and not stored",
    responses=documented(*OF_USERS, *WITH_BODY, NotFound, UpstreamRejected),
)
async def poll_own_session(
    session_id: ShortText, body: SessionPoll, user: EndUserDep, runtime: RuntimeDep
) -> SessionStatus:
    return SessionStatus.of(*await poll_session(runtime, user.owner, session_id, body.token.get_secret_value()))


@catalogue.get(
    "",
    operation_id="listConnectors",
    summary="List the providers that you may link",
    responses=documented(*OF_USERS, *WITH_PARAMETERS, UpstreamRejected),
)
async def list_own_connectors(user: EndUserDep, runtime: RuntimeDep, query: Connectors) -> ConnectorPage:
    found, has_more = await list_connectors(runtime, user.owner_id, Channel.BROWSER, user.claims, query)
    return ConnectorPage.of(found, has_more=has_more)


@service.get(
    "/connectors",
    operation_id="listOwnerConnectors",
    summary="List the providers that a service may link for an owner, with their connector profiles",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, UpstreamRejected),
)
async def list_owner_connectors(
    owner_id: OwnerId, _caller: AccountReader, runtime: RuntimeDep, query: Connectors
) -> OwnerConnectorPage:
    found, has_more = await list_connectors(runtime, owner_id, Channel.SERVICE, {}, query)
    return OwnerConnectorPage.of(found, has_more=has_more)
