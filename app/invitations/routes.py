"""Invitations over HTTP: made, listed and ended by services, opened by signed-in users."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.errors import (
    AlreadyLinked,
    BeingDisconnected,
    Conflict,
    Forbidden,
    InvitationOver,
    NotConfigured,
    NotFound,
    UpstreamRejected,
)
from app.http.callers import EndUserDep, MintingUserDep, RuntimeDep, requires
from app.http.problems import OF_SERVICES, OF_USERS, WITH_BODY, WITH_PARAMETERS, documented
from app.identity.caller import EndUser, Scope, Service
from app.inputs import OwnerId, ProviderKey, ShortText
from app.invitations.invite import invite
from app.invitations.listing import end_invitation, get_invitation, list_invitations
from app.invitations.open import open_invitation
from app.invitations.pins import pin_account
from app.invitations.queries import InvitationsQuery, UseQuery
from app.invitations.schemas import (
    InvitationBody,
    InvitationCode,
    InvitationOut,
    InvitationPage,
    OpenedInvitation,
    OwnerPin,
    Pin,
    UseOut,
)
from app.invitations.use import Asker, use
from app.linked_accounts.queries import FreshQuery
from app.policy.rules import Channel

browser = APIRouter(prefix="/v1/invitations", tags=["browser"])
service = APIRouter(prefix="/v1/owners/{owner_id}/invitations", tags=["service"])

own_use = APIRouter(prefix="/v1/use", tags=["browser"])
owner_use = APIRouter(prefix="/v1/owners/{owner_id}/use", tags=["service"])

AccountReader = Annotated[Service, Depends(requires(Scope.ACCOUNTS_READ))]
AccountWriter = Annotated[Service, Depends(requires(Scope.ACCOUNTS_WRITE))]
SessionWriter = Annotated[Service, Depends(requires(Scope.SESSIONS_WRITE))]


@browser.post(
    "/open",
    status_code=201,
    operation_id="openInvitation",
    summary="Open the connect session that you were invited to",
    responses=documented(
        *OF_USERS,
        *WITH_BODY,
        Forbidden,
        NotFound,
        Conflict,
        BeingDisconnected,
        AlreadyLinked,
        InvitationOver,
        UpstreamRejected,
    ),
)
async def open_own_invitation(user: MintingUserDep, runtime: RuntimeDep, body: InvitationCode) -> OpenedInvitation:
    return OpenedInvitation.of_opened(await open_invitation(runtime, user, body.code.get_secret_value()))


@service.post(
    "",
    status_code=201,
    operation_id="createInvitation",
    summary="Invite a user of an owner to link or re-authenticate an account",
    responses=documented(*OF_SERVICES, *WITH_BODY, NotFound, NotConfigured),
)
async def invite_user(
    owner_id: OwnerId, caller: SessionWriter, runtime: RuntimeDep, body: InvitationBody | None = None
) -> InvitationOut:
    body = body or InvitationBody()
    invitation = await invite(runtime, owner_id, body.request(), actor=caller.actor)
    return InvitationOut.of(invitation, runtime.settings.invitations, runtime.clock.now())


@service.get(
    "",
    operation_id="listInvitations",
    summary="List an owner's invitations, the newest first",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS),
)
async def list_owner_invitations(
    owner_id: OwnerId, _caller: SessionWriter, runtime: RuntimeDep, query: Annotated[InvitationsQuery, Query()]
) -> InvitationPage:
    found, has_more = await list_invitations(runtime, owner_id, query)
    return InvitationPage.of(found, runtime.settings.invitations, runtime.clock.now(), has_more=has_more)


@service.get(
    "/{invitation_id}",
    operation_id="getInvitation",
    summary="Get what became of an invitation",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def get_owner_invitation(
    owner_id: OwnerId, invitation_id: ShortText, _caller: SessionWriter, runtime: RuntimeDep
) -> InvitationOut:
    invitation = await get_invitation(runtime, owner_id, invitation_id)
    return InvitationOut.of(invitation, runtime.settings.invitations, runtime.clock.now())


@service.delete(
    "/{invitation_id}",
    operation_id="endInvitation",
    summary="End an invitation: it opens nothing any more",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def end_owner_invitation(
    owner_id: OwnerId, invitation_id: ShortText, caller: SessionWriter, runtime: RuntimeDep
) -> InvitationOut:
    invitation = await end_invitation(runtime, owner_id, invitation_id, actor=caller.actor)
    return InvitationOut.of(invitation, runtime.settings.invitations, runtime.clock.now())


@own_use.get(
    "/{provider}",
    operation_id="useProvider",
    summary="Which of your accounts of a provider to work with, or what to do first",
    responses=documented(*OF_USERS, *WITH_PARAMETERS, UpstreamRejected),
)
async def use_own_account(
    provider: ProviderKey, user: EndUserDep, runtime: RuntimeDep, query: Annotated[FreshQuery, Query()]
) -> UseOut:
    return UseOut.of(await use(runtime, _asking(user), provider, query))


@own_use.put(
    "/{provider}",
    operation_id="pinProvider",
    summary="Pin the account of a provider that is to be used for you",
    responses=documented(*OF_USERS, *WITH_BODY, NotFound),
)
async def pin_own_account(provider: ProviderKey, user: EndUserDep, runtime: RuntimeDep, body: Pin) -> UseOut:
    await pin_account(runtime, user.owner_id, provider, body.account_id, username=user.username, actor=user.actor)
    return UseOut.of(await use(runtime, _asking(user), provider, FreshQuery()))


@owner_use.get(
    "/{provider}",
    operation_id="useOwnerProvider",
    summary="Which of an owner's accounts of a provider to work with, or what somebody has to do first",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, UpstreamRejected),
)
async def use_owner_account(
    owner_id: OwnerId,
    provider: ProviderKey,
    caller: AccountReader,
    runtime: RuntimeDep,
    query: Annotated[UseQuery, Query()],
) -> UseOut:
    return UseOut.of(await use(runtime, _asked_by(caller, owner_id, query.user), provider, query))


@owner_use.put(
    "/{provider}",
    operation_id="pinOwnerProvider",
    summary="Pin the account of a provider that is to be used for an owner, or for one of its users",
    responses=documented(*OF_SERVICES, *WITH_BODY, NotFound),
)
async def pin_owner_account(
    owner_id: OwnerId, provider: ProviderKey, caller: AccountWriter, runtime: RuntimeDep, body: OwnerPin
) -> UseOut:
    await pin_account(runtime, owner_id, provider, body.account_id, username=body.user, actor=caller.actor)
    return UseOut.of(await use(runtime, _asked_by(caller, owner_id, body.user), provider, FreshQuery()))


def _asking(user: EndUser) -> Asker:
    return Asker(user.owner_id, user.username, Channel.BROWSER, user.actor, user.claims)


def _asked_by(caller: Service, owner_id: str, username: str | None) -> Asker:
    return Asker(owner_id, username, Channel.SERVICE, caller.actor)
