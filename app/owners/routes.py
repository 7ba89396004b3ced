"""Owners over HTTP: pin a name, erase everything."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.errors import NotConfigured, NotFound
from app.http.callers import RuntimeDep, requires
from app.http.problems import OF_SERVICES, WITH_BODY, WITH_PARAMETERS, documented
from app.identity.caller import Scope, Service
from app.inputs import OwnerId, ShortText
from app.owners.erasure import erase_owner, get_receipt
from app.owners.listing import get_owner, list_owners
from app.owners.names import pin_owner
from app.owners.queries import OwnersQuery, RevocationQuery
from app.owners.schemas import (
    ErasureReceipt,
    OwnerName,
    OwnerOut,
    OwnerPage,
    PinnedName,
    RevocationOut,
    UserTokenBody,
    UserTokenOut,
)
from app.owners.tables import ErasureState
from app.owners.user_tokens import issue_user_token, revoke_user_tokens

service = APIRouter(prefix="/v1", tags=["service"])

AccountReader = Annotated[Service, Depends(requires(Scope.ACCOUNTS_READ))]
OwnerWriter = Annotated[Service, Depends(requires(Scope.OWNERS_WRITE))]
UserWriter = Annotated[Service, Depends(requires(Scope.USERS_WRITE))]


@service.get(
    "/owners",
    operation_id="listOwners",
    summary="List owners, with how their accounts stand",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS),
)
async def list_all_owners(
    caller: AccountReader, runtime: RuntimeDep, query: Annotated[OwnersQuery, Query()]
) -> OwnerPage:
    found, has_more = await list_owners(runtime, caller, query)
    return OwnerPage.of(found, has_more=has_more)


@service.get(
    "/owners/{owner_id}",
    operation_id="getOwner",
    summary="Get an owner, with how its accounts stand",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def show_owner(owner_id: OwnerId, _caller: AccountReader, runtime: RuntimeDep) -> OwnerOut:
    return OwnerOut.of(await get_owner(runtime, owner_id))


@service.delete(
    "/owners/{owner_id}",
    operation_id="eraseOwner",
    summary="Erase an owner: its accounts at StackOne, and everything personal here; answers with a receipt",
    responses={
        202: {"model": ErasureReceipt, "description": "Under way."},
        **documented(*OF_SERVICES, *WITH_PARAMETERS),
    },
)
async def erase(owner_id: OwnerId, caller: OwnerWriter, runtime: RuntimeDep, response: Response) -> ErasureReceipt:
    erasure = await erase_owner(runtime, owner_id, actor=caller.actor)
    response.status_code = 200 if erasure.state is ErasureState.COMPLETE else 202
    return ErasureReceipt.of(erasure)


@service.get(
    "/erasures/{erasure_id}",
    operation_id="getErasure",
    summary="Get the progress of an erasure",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def show_receipt(erasure_id: ShortText, caller: OwnerWriter, runtime: RuntimeDep) -> ErasureReceipt:
    return ErasureReceipt.of(await get_receipt(runtime, caller, erasure_id))


@service.put(
    "/owners/{owner_id}/name",
    operation_id="pinOwnerName",
    summary="Pin another name for an owner: the one that StackOne is given from now on",
    responses=documented(*OF_SERVICES, *WITH_BODY),
)
async def pin_owner_name(owner_id: OwnerId, caller: OwnerWriter, runtime: RuntimeDep, body: OwnerName) -> PinnedName:
    pin = await pin_owner(runtime, owner_id, body.name, actor=caller.actor, dry_run=body.dry_run)
    return PinnedName.of(pin)


@service.post(
    "/owners/{owner_id}/user-tokens",
    status_code=201,
    operation_id="createUserToken",
    summary="Make a token with which a browser is a user of this owner",
    responses=documented(*OF_SERVICES, *WITH_BODY, NotConfigured),
)
async def issue_token(owner_id: OwnerId, caller: UserWriter, runtime: RuntimeDep, body: UserTokenBody) -> UserTokenOut:
    return UserTokenOut.of(await issue_user_token(runtime, caller, owner_id, body.request()))


@service.delete(
    "/owners/{owner_id}/user-tokens",
    operation_id="revokeUserTokens",
    summary="End all user tokens of an owner, or of one of its users, that were made before now",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS),
)
async def revoke_tokens(
    owner_id: OwnerId, caller: UserWriter, runtime: RuntimeDep, query: Annotated[RevocationQuery, Query()]
) -> RevocationOut:
    return RevocationOut.of(await revoke_user_tokens(runtime, owner_id, query.user, actor=caller.actor))
