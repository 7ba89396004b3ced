"""Connect sessions over HTTP: minting by a signed-in user, or by a service for an owner."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.connect_sessions import ledger
from app.connect_sessions.mint import MintedSession, Minter, Owner
from app.connect_sessions.poll import poll_session
from app.connect_sessions.resolve import resolve
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
from app.errors import NotFound
from app.http.callers import EndUserDep, RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import EndUser, Scope, Service
from app.inputs import OwnerId, ShortText
from app.limits import Rate
from app.policy.rules import Channel
from app.runtime import Runtime
from app.stackone.models import ConnectSessionRequest

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


def _minter(runtime: Runtime) -> Minter:
    return Minter(
        database=runtime.database,
        stackone=runtime.stackone,
        policy=runtime.policy,
        live_sessions_per_owner=runtime.settings.limits.live_sessions_per_owner,
        clock=runtime.clock,
        metrics=runtime.metrics,
        new_id=runtime.new_id,
    )


def _wish(body: SessionRequest) -> ConnectSessionRequest:
    """Take over what a caller may choose; owner, name and username are filled in by the minter alone."""
    return ConnectSessionRequest(
        origin_owner_id="",
        origin_owner_name="",
        provider=body.provider,
        categories=tuple(body.categories) if body.categories else None,
        account_id=body.account_id,
        multiple=body.multiple,
        label=body.label,
        connector_profile_id=body.connector_profile_id,
    )


@browser.post(
    "",
    status_code=201,
    summary="Open a connect session for yourself: a token for the Hub",
    responses=documented(401, 403, 404, 413, 422, 429, 502, 503),
)
async def open_own_session(  # noqa: D103
    user: MintingUser, runtime: RuntimeDep, body: SessionRequest | None = None
) -> SessionToken:
    minted = await _minter(runtime).mint(
        _wish(body or SessionRequest()),
        Owner(user.owner_id, user.owner_name, user.username, user.actor, user.claims),
        channel="browser",
        expires_in=runtime.settings.sessions.expires_in_seconds,
    )
    return SessionToken(
        id=minted.id,
        token=minted.token.get_secret_value(),
        expires_at=minted.expires_at,
        expires_in=minted.expires_in,
        mode=minted.mode,
        account_id=minted.account_id,
        provider=minted.provider,
    )


@browser.get(
    "/{session_id}", summary="See how a session of yours stands", responses=documented(401, 404, 422, 429, 503)
)
async def get_own_session(session_id: ShortText, user: EndUserDep, runtime: RuntimeDep) -> SessionStatus:  # noqa: D103
    return await _status(runtime, user.owner_id, session_id)


@service.get(
    "/connect-sessions/{session_id}",
    summary="See how a session of an owner stands",
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def get_owner_session(  # noqa: D103
    owner_id: OwnerId,
    session_id: ShortText,
    _caller: SessionWriter,
    runtime: RuntimeDep,
) -> SessionStatus:
    return await _status(runtime, owner_id, session_id)


@service.post(
    "/connect-sessions",
    status_code=201,
    summary="Open a connect session for an owner",
    responses=documented(401, 403, 404, 413, 422, 429, 502, 503),
)
async def open_owner_session(  # noqa: D103
    owner_id: OwnerId,
    caller: MintingService,
    runtime: RuntimeDep,
    body: OwnerSessionRequest | None = None,
) -> OwnerSessionToken:
    lifetime = runtime.settings.sessions.expires_in_seconds
    minted = await _mint_for_owner(runtime, caller, owner_id, body, "service", lifetime)
    return OwnerSessionToken(
        id=minted.id,
        token=minted.token.get_secret_value(),
        auth_link_url=minted.auth_link_url.get_secret_value(),
        expires_at=minted.expires_at,
        expires_in=minted.expires_in,
        mode=minted.mode,
        account_id=minted.account_id,
        provider=minted.provider,
        owner_id=owner_id,
        owner_name=minted.owner_name,
    )


@service.post(
    "/auth-links",
    status_code=201,
    summary="Make a link with which a person can link an account for an owner, by e-mail for example",
    responses=documented(401, 403, 404, 413, 422, 429, 502, 503),
)
async def make_auth_link(  # noqa: D103
    owner_id: OwnerId,
    caller: MintingService,
    runtime: RuntimeDep,
    body: OwnerSessionRequest | None = None,
) -> AuthLink:
    lifetime = runtime.settings.sessions.auth_link_expires_in_seconds
    minted = await _mint_for_owner(runtime, caller, owner_id, body, "auth_link", lifetime)
    return AuthLink(
        id=minted.id,
        auth_link_url=minted.auth_link_url.get_secret_value(),
        expires_at=minted.expires_at,
        expires_in=minted.expires_in,
        mode=minted.mode,
        account_id=minted.account_id,
        provider=minted.provider,
        owner_id=owner_id,
        owner_name=minted.owner_name,
    )


async def _mint_for_owner(
    runtime: Runtime,
    caller: Service,
    owner_id: str,
    body: OwnerSessionRequest | None,
    channel: Channel,
    default_lifetime: int,
) -> MintedSession:
    asked = body or OwnerSessionRequest()
    wish = ConnectSessionRequest(
        **{
            **_wish(asked).__dict__,
            "metadata": asked.metadata,
            "type": asked.type,
            "connector_profile_id": asked.connector_profile_id or asked.integration_id,
        }
    )
    owner = Owner(owner_id, asked.origin_owner_name or owner_id, asked.origin_username, caller.actor)
    expires_in = asked.expires_in or default_lifetime
    return await _minter(runtime).mint(wish, owner, channel=channel, expires_in=expires_in)


async def _status(runtime: Runtime, owner_id: str, session_id: str) -> SessionStatus:
    """Say how a session stands, resolving it if there is news.

    Raises NotFound alike for an unknown session and for somebody else's.
    """
    async with runtime.database.transaction() as connection:
        session = await ledger.get_session(connection, owner_id, session_id)
        if session is None:
            raise NotFound
        return SessionStatus.of(await resolve(connection, session, runtime.clock.now()))


@browser.post(
    "/{session_id}/poll",
    summary="Have StackOne asked how a session of yours stands; the token is used for this and kept nowhere",
    responses=documented(401, 404, 413, 422, 429, 502, 503),
)
async def poll_own_session(  # noqa: D103
    session_id: ShortText, body: SessionPoll, user: EndUserDep, runtime: RuntimeDep
) -> PolledSession:
    session, attempt = await poll_session(runtime, user, session_id, body.token.get_secret_value())
    return PolledSession(**SessionStatus.of(session).model_dump(), attempt=attempt)
