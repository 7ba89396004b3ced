"""Connect sessions over HTTP: minting by a signed-in user, or by a service for an owner."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.connect_sessions.mint import mint
from app.connect_sessions.poll import poll_session
from app.connect_sessions.resolve import resolve_session
from app.connect_sessions.schemas import (
    AuthLink,
    OwnerSessionRequest,
    OwnerSessionToken,
    PolledSession,
    SessionPoll,
    SessionRequest,
    SessionStatus,
    SessionToken,
)
from app.http.callers import EndUserDep, RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import EndUser, Scope, Service
from app.inputs import OwnerId, ShortText
from app.limits import Rate
from app.policy.rules import Channel

browser = APIRouter(prefix="/v1/connect-sessions", tags=["browser"])
service = APIRouter(prefix="/v1/owners/{owner_id}", tags=["service"])

SessionWriter = Annotated[Service, Depends(requires(Scope.SESSIONS_WRITE))]


async def _minting_user(user: EndUserDep, runtime: RuntimeDep) -> EndUser:
    await runtime.limiter.take(Rate.MINT_PER_USER, user.issuer, user.subject)
    await runtime.limiter.take(Rate.MINT_PER_OWNER, user.owner_id)
    return user


async def _minting_service(owner_id: OwnerId, caller: SessionWriter, runtime: RuntimeDep) -> Service:
    await runtime.limiter.take(Rate.MINT_PER_OWNER, owner_id)
    return caller


MintingUser = Annotated[EndUser, Depends(_minting_user)]
MintingService = Annotated[Service, Depends(_minting_service)]


@browser.post(
    "",
    status_code=201,
    summary="Open a connect session for yourself: a token for the Hub",
    responses=documented(401, 403, 404, 409, 413, 422, 429, 502, 503),
)
async def open_own_session(  # noqa: D103
    user: MintingUser, runtime: RuntimeDep, body: SessionRequest | None = None
) -> SessionToken:
    body = body or SessionRequest()
    return SessionToken.of(await mint(runtime, user.owner, body.request(), Channel.BROWSER))


@browser.get(
    "/{session_id}", summary="Get what became of one of your sessions", responses=documented(401, 404, 422, 429, 503)
)
async def get_own_session(session_id: ShortText, user: EndUserDep, runtime: RuntimeDep) -> SessionStatus:  # noqa: D103
    return SessionStatus.of(await resolve_session(runtime, user.owner_id, session_id))


@service.get(
    "/connect-sessions/{session_id}",
    summary="Get what became of an owner's session",
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def get_owner_session(  # noqa: D103
    owner_id: OwnerId,
    session_id: ShortText,
    _caller: SessionWriter,
    runtime: RuntimeDep,
) -> SessionStatus:
    return SessionStatus.of(await resolve_session(runtime, owner_id, session_id))


@service.post(
    "/connect-sessions",
    status_code=201,
    summary="Open a connect session for an owner",
    responses=documented(401, 403, 404, 409, 413, 422, 429, 502, 503),
)
async def open_owner_session(  # noqa: D103
    owner_id: OwnerId,
    caller: MintingService,
    runtime: RuntimeDep,
    body: OwnerSessionRequest | None = None,
) -> OwnerSessionToken:
    body = body or OwnerSessionRequest()
    owner = caller.on_behalf_of(owner_id, body.origin_owner_name, body.origin_username)
    return OwnerSessionToken.of(await mint(runtime, owner, body.request(), Channel.SERVICE))


@service.post(
    "/auth-links",
    status_code=201,
    summary="Make a link with which a person can link an account for an owner, by e-mail for example",
    responses=documented(401, 403, 404, 409, 413, 422, 429, 502, 503),
)
async def make_auth_link(  # noqa: D103
    owner_id: OwnerId,
    caller: MintingService,
    runtime: RuntimeDep,
    body: OwnerSessionRequest | None = None,
) -> AuthLink:
    body = body or OwnerSessionRequest()
    owner = caller.on_behalf_of(owner_id, body.origin_owner_name, body.origin_username)
    return AuthLink.of(await mint(runtime, owner, body.request(), Channel.AUTH_LINK))


@browser.post(
    "/{session_id}/poll",
    summary="Ask StackOne what became of one of your sessions; the token is used for this and not stored",
    responses=documented(401, 404, 413, 422, 429, 502, 503),
)
async def poll_own_session(  # noqa: D103
    session_id: ShortText, body: SessionPoll, user: EndUserDep, runtime: RuntimeDep
) -> PolledSession:
    return PolledSession.of_poll(*await poll_session(runtime, user, session_id, body.token.get_secret_value()))
