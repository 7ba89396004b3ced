"""Erasing an owner over HTTP."""

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from app.errors import NotFound
from app.http.callers import RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import Scope, Service
from app.inputs import OwnerId, ShortText
from app.owners.erasure import Erasure, erase_owner, get_erasure

service = APIRouter(prefix="/v1", tags=["service"])

OwnerWriter = Annotated[Service, Depends(requires(Scope.OWNERS_WRITE))]


class ErasureReceipt(BaseModel):
    """What became of an erasure. Keep its id: it stands for the owner in what remains."""

    id: str
    state: Literal["pending", "complete"] = Field(description="pending until StackOne has nothing of the owner left.")
    requested_by: str
    requested_at: datetime
    completed_at: datetime | None
    accounts: int = Field(description="Accounts whose rows were cleared; each was deleted at StackOne.")
    sessions: int = Field(description="Connect sessions that were removed.")
    events: int = Field(description="Entries of the history that were cleared.")

    @classmethod
    def of(cls, erasure: Erasure) -> Self:
        """Show a receipt."""
        return cls.model_validate({name: getattr(erasure, name) for name in cls.model_fields})


@service.delete(
    "/owners/{owner_id}",
    summary="Erase an owner: its accounts at StackOne, and everything personal here; answers with a receipt",
    responses={202: {"model": ErasureReceipt, "description": "Under way."}, **documented(401, 403, 422, 429, 503)},
)
async def erase(  # noqa: D103
    owner_id: OwnerId, caller: OwnerWriter, runtime: RuntimeDep, response: Response
) -> ErasureReceipt:
    erasure = await erase_owner(runtime, owner_id, actor=caller.actor)
    response.status_code = 200 if erasure.state == "complete" else 202
    return ErasureReceipt.of(erasure)


@service.get(
    "/erasures/{erasure_id}",
    summary="See how far an erasure is",
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def get_receipt(  # noqa: D103
    erasure_id: ShortText, caller: OwnerWriter, runtime: RuntimeDep
) -> ErasureReceipt:
    erasure = await get_erasure(runtime, erasure_id)
    if caller.owner_ids is not None and erasure.requested_by != caller.actor:
        raise NotFound
    return ErasureReceipt.of(erasure)
