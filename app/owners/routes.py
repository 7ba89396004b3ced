"""Owners over HTTP: pin a name, erase everything."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.http.callers import RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import Scope, Service
from app.inputs import OwnerId, ShortText
from app.owners.erasure import erase_owner, get_receipt
from app.owners.names import pin_owner
from app.owners.schemas import ErasureReceipt, OwnerName, PinnedName
from app.owners.tables import ErasureState

service = APIRouter(prefix="/v1", tags=["service"])

OwnerWriter = Annotated[Service, Depends(requires(Scope.OWNERS_WRITE))]


@service.delete(
    "/owners/{owner_id}",
    summary="Erase an owner: its accounts at StackOne, and everything personal here; answers with a receipt",
    responses={202: {"model": ErasureReceipt, "description": "Under way."}, **documented(401, 403, 422, 429, 503)},
)
async def erase(  # noqa: D103
    owner_id: OwnerId, caller: OwnerWriter, runtime: RuntimeDep, response: Response
) -> ErasureReceipt:
    erasure = await erase_owner(runtime, owner_id, actor=caller.actor)
    response.status_code = 200 if erasure.state is ErasureState.COMPLETE else 202
    return ErasureReceipt.of(erasure)


@service.get(
    "/erasures/{erasure_id}",
    summary="Get the progress of an erasure",
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def show_receipt(  # noqa: D103
    erasure_id: ShortText, caller: OwnerWriter, runtime: RuntimeDep
) -> ErasureReceipt:
    return ErasureReceipt.of(await get_receipt(runtime, caller, erasure_id))


@service.put(
    "/owners/{owner_id}/name",
    summary="Pin another name for an owner: the one that StackOne is given from now on",
    responses=documented(401, 403, 413, 422, 429, 503),
)
async def pin_owner_name(  # noqa: D103
    owner_id: OwnerId, caller: OwnerWriter, runtime: RuntimeDep, body: OwnerName
) -> PinnedName:
    pin = await pin_owner(runtime, owner_id, body.name, actor=caller.actor, dry_run=body.dry_run)
    return PinnedName.of(pin)
