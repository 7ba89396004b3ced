"""Synchronisation over HTTP: StackOne's webhook, and sweeps on request."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.errors import InsufficientScope, Overloaded, Unauthenticated, Unavailable
from app.http.callers import RuntimeDep, requires
from app.http.problems import OF_SERVICES, WITH_BODY, documented
from app.identity.caller import Scope, Service
from app.stackone.webhook import SIGNATURE_HEADER
from app.sync import sweep
from app.sync.inbox import receive
from app.sync.schemas import Receipt, SweepAccepted, SweepRequest, SyncStatus
from app.sync.status import read_status

webhook = APIRouter(prefix="/v1/webhooks", tags=["webhook"])
service = APIRouter(prefix="/v1/sync", tags=["service"])


@webhook.post(
    "/stackone",
    operation_id="receiveStackOneEvent",
    summary="Receive an account event from StackOne, signed over the raw body",
    responses=documented(Unauthenticated, *WITH_BODY, Unavailable, Overloaded),
    openapi_extra={
        "parameters": [
            {"name": SIGNATURE_HEADER, "in": "header", "required": True, "schema": {"type": "string", "maxLength": 64}}
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
    },
)
async def receive_event(request: Request, runtime: RuntimeDep) -> Receipt:
    return Receipt.of(await receive(runtime, request.body, request.headers.getlist(SIGNATURE_HEADER)))


async def _sync_writer(caller: Annotated[Service, Depends(requires(Scope.SYNC_WRITE))]) -> Service:
    if caller.owner_ids is not None:
        raise InsufficientScope(
            Scope.SYNC_WRITE.value, "a sweep covers every owner; this credential is limited to some"
        )
    return caller


SyncWriter = Annotated[Service, Depends(_sync_writer)]


@service.post(
    "",
    status_code=202,
    operation_id="startSync",
    summary="Request a sweep: all accounts at StackOne are compared with the store, and the store is corrected",
    responses=documented(*OF_SERVICES, *WITH_BODY),
)
async def request_sweep(caller: SyncWriter, runtime: RuntimeDep, body: SweepRequest | None = None) -> SweepAccepted:
    percent = body.max_removal_percent if body else None
    return SweepAccepted.of_request(*await sweep.request_sweep(runtime, by=caller.actor, max_removal_percent=percent))


@service.get(
    "",
    operation_id="getSync",
    summary="Get the running sweep, past ones and their drift",
    responses=documented(*OF_SERVICES),
)
async def get_sync(_caller: SyncWriter, runtime: RuntimeDep) -> SyncStatus:
    return SyncStatus.of(await read_status(runtime))
