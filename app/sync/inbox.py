"""The inbox of StackOne's events: each is written down once, and its account marked due, before it is acknowledged."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.tables import upsert
from app.errors import Unauthenticated
from app.linked_accounts import due
from app.linked_accounts.changes import Kind, Source, Witness
from app.linked_accounts.tables import account_events
from app.runtime import Runtime
from app.stackone.models import possible_account_id
from app.stackone.webhook import AccountEvent, Delivery, require_signature, unwrap

_DELETED = "account.deleted"

logger = structlog.get_logger(__name__)


class Outcome(Enum):
    """What became of a delivery whose signature holds."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    FOREIGN_PROJECT = "foreign_project"


async def receive(runtime: Runtime, read_body: Callable[[], Awaitable[bytes]], signatures: Sequence[str]) -> Outcome:
    """Verify a delivery and write it down. Raises Unauthenticated or Unprocessable as `unwrap` does.

    The signature's header comes first: whoever sends none, or no possible one, makes nobody keep a body in memory.
    Whatever fails on the way raises, so that StackOne gets no 200 for an event that is not on disk.
    """
    secrets = [secret.get_secret_value().encode() for secret in runtime.settings.stackone.webhook_secrets]
    try:
        require_signature(signatures)
        delivery = unwrap(await read_body(), signatures, secrets)
    except Unauthenticated:
        runtime.metrics.webhooks.labels("refused").inc()
        raise
    runtime.metrics.webhook_secret.labels(str(delivery.secret_position)).inc()
    received = await record_hint(runtime, delivery)
    runtime.metrics.webhooks.labels(received.value).inc()
    return received


async def record_hint(runtime: Runtime, delivery: Delivery) -> Outcome:
    """Write a delivery down once and mark its account due, in one transaction."""
    event = delivery.event
    if event is None or not possible_account_id(event.account_id):
        logger.info("webhook_ignored", reason="not an account event")
        return Outcome.IGNORED
    if not _of_our_project(event, runtime.settings.stackone.project_id):
        logger.error("webhook_ignored", reason="signed with our secret but of another project")
        return Outcome.FOREIGN_PROJECT
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        is_new = await _write_down(connection, delivery.digest, event, now)
        if is_new:
            is_deletion = event.event == _DELETED
            await due.mark_due(connection, event.account_id, now=now, witness=Witness.EVENT if is_deletion else None)
    if not is_new:
        return Outcome.DUPLICATE
    runtime.unknown_ids.forget(event.account_id)
    runtime.account_due.set()
    logger.info("webhook_accepted", event_name=event.event, account_id=event.account_id)
    return Outcome.ACCEPTED


def _of_our_project(event: AccountEvent, project_id: str | None) -> bool:
    return project_id is None or event.project_id == project_id


async def _write_down(connection: AsyncConnection, digest: bytes, event: AccountEvent, now: datetime) -> bool:
    """Write a webhook delivery down once; return False for one that is already there.

    The digest covers the whole body. Two deliveries that differ only in `sent_at` are two hints: they cost one more
    read at most, while a digest without it would drop a second change that carries the same event date.

    Whose account the event says it is is left out: StackOne is asked anyway, and an event that comes late (of the very
    deletions that erased an owner) must not bring the owner back.
    """
    statement = upsert(
        connection,
        account_events,
        {
            "digest": digest,
            "account_id": event.account_id,
            "provider": event.provider,
            "kind": Kind.HINT.value,
            "source": Source.WEBHOOK.value,
            "actor": "stackone",
            "at": now,
            "changes": {"event": event.event},
        },
    ).on_conflict_do_nothing(index_elements=[account_events.c.digest])
    result = await connection.execute(statement.returning(account_events.c.id))
    return result.scalar_one_or_none() is not None
