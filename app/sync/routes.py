"""Synchronisation over HTTP: StackOne's webhook, and sweeps on request."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from app.errors import InsufficientScope, Unauthenticated
from app.http.callers import RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import Scope, Service
from app.linked_accounts.store import count_due_of_all_owners
from app.stackone.webhook import SIGNATURE_HEADER, unwrap
from app.sync import runs
from app.sync.inbox import record_hint
from app.sync.schemas import SweepAccepted, SweepOut, SweepRequest, SyncStatus
from app.sync.suspects import count_known

webhook = APIRouter(prefix="/v1/webhooks", tags=["webhook"])
service = APIRouter(prefix="/v1/sync", tags=["service"])


_RUNS_SHOWN = 10


class Receipt(BaseModel):
    """What became of a delivery; StackOne looks at the status only."""

    outcome: str


@webhook.post(
    "/stackone",
    summary="Receive an account event from StackOne, signed over the raw body",
    responses=documented(401, 413, 422, 503),
    openapi_extra={
        "parameters": [
            {"name": SIGNATURE_HEADER, "in": "header", "required": True, "schema": {"type": "string", "maxLength": 64}}
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
    },
)
async def receive_event(request: Request, runtime: RuntimeDep) -> Receipt:  # noqa: D103
    secrets = [secret.get_secret_value().encode() for secret in runtime.settings.stackone.webhook_secrets]
    body = await request.body()
    try:
        delivery = unwrap(body, request.headers.getlist(SIGNATURE_HEADER), secrets)
    except Unauthenticated:
        runtime.metrics.webhooks.labels("refused").inc()
        raise
    runtime.metrics.webhook_secret.labels(str(delivery.secret_position)).inc()
    outcome = await record_hint(runtime, delivery)
    runtime.metrics.webhooks.labels(outcome).inc()
    return Receipt(outcome=outcome)


async def _sync_writer(caller: Annotated[Service, Depends(requires(Scope.SYNC_WRITE))]) -> Service:
    if caller.owner_ids is not None:
        raise InsufficientScope(Scope.SYNC_WRITE, "a sweep covers every owner; this credential is limited to some")
    return caller


SyncWriter = Annotated[Service, Depends(_sync_writer)]


@service.post(
    "",
    status_code=202,
    summary="Ask for a sweep: everything at StackOne is compared with the store, and the store put right",
    responses=documented(401, 403, 413, 422, 429, 503),
)
async def request_sweep(  # noqa: D103
    caller: SyncWriter, runtime: RuntimeDep, body: SweepRequest | None = None
) -> SweepAccepted:
    percent = body.max_removal_percent if body else None
    async with runtime.database.transaction() as connection:
        sweep, started = await runs.request(
            connection, by=caller.actor, now=runtime.clock.now(), max_removal_percent=percent
        )
    runtime.sweep_requested.set()
    return SweepAccepted(**SweepOut.of(sweep).model_dump(), started=started)


@service.get("", summary="See how the store stands against StackOne", responses=documented(401, 403, 429, 503))
async def get_sync(_caller: SyncWriter, runtime: RuntimeDep) -> SyncStatus:  # noqa: D103
    async with runtime.database.reading() as connection:
        current = await runs.unfinished(connection)
        last = await runs.recent(connection, _RUNS_SHOWN)
        accounts = await count_known(connection)
        due = await count_due_of_all_owners(connection)
    return SyncStatus.model_validate(
        {
            "state": current.state if current else "idle",
            "current": SweepOut.of(current) if current else None,
            "last_runs": [SweepOut.of(sweep) for sweep in last],
            "accounts": accounts,
            "due": due,
            "drift": last[0].drift if last else None,
        }
    )
