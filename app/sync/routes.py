"""What StackOne tells us: the webhook. It writes a hint down and answers; it never calls StackOne."""

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.errors import Unauthenticated
from app.http.callers import RuntimeDep
from app.http.problems import documented
from app.linked_accounts import due
from app.linked_accounts.changes import record_delivery
from app.linked_accounts.confirm import possible_account_id
from app.runtime import Runtime
from app.stackone.webhook import SIGNATURE_HEADER, AccountEvent, Delivery, unwrap

logger = structlog.get_logger(__name__)

webhook = APIRouter(prefix="/v1/webhooks", tags=["webhook"])


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
    outcome = await record_hint(delivery, runtime)
    runtime.metrics.webhooks.labels(outcome).inc()
    return Receipt(outcome=outcome)


async def record_hint(delivery: Delivery, runtime: Runtime) -> str:
    """Write a delivery down once and mark its account due, in one transaction; return accepted, duplicate or ignored.

    Whatever fails here raises, so that StackOne gets no 200 for an event that is not on disk.
    """
    event = delivery.event
    if event is None or not possible_account_id(event.account_id):
        logger.info("webhook_ignored", reason="not an account event")
        return "ignored"
    if not _of_our_project(event, runtime.settings.stackone.project_id):
        logger.error("webhook_ignored", reason="signed with our secret but of another project")
        return "foreign_project"
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        is_new = await record_delivery(
            connection,
            digest=delivery.digest,
            account_id=event.account_id,
            provider=event.provider,
            event=event.event,
            now=now,
        )
        if is_new:
            await due.mark_due(connection, event.account_id, now=now)
    if not is_new:
        return "duplicate"
    runtime.account_due.set()
    logger.info("webhook_accepted", event_name=event.event, account_id=event.account_id)
    return "accepted"


def _of_our_project(event: AccountEvent, project_id: str | None) -> bool:
    return project_id is None or event.project_id == project_id
