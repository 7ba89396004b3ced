"""The inbox of StackOne's events: each is written down once, and its account marked due, before it is acknowledged."""

from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.tables import upsert
from app.linked_accounts import due
from app.linked_accounts.changes import Kind, Source
from app.linked_accounts.tables import account_events
from app.runtime import Runtime
from app.stackone.models import possible_account_id
from app.stackone.webhook import AccountEvent, Delivery

logger = structlog.get_logger(__name__)


async def record_hint(runtime: Runtime, delivery: Delivery) -> str:
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


async def record_delivery(
    connection: AsyncConnection,
    *,
    digest: bytes,
    account_id: str,
    provider: str | None,
    event: str,
    now: datetime,
) -> bool:
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
            "account_id": account_id,
            "provider": provider,
            "kind": Kind.HINT.value,
            "source": Source.WEBHOOK.value,
            "actor": "stackone",
            "at": now,
            "changes": {"event": event},
        },
    ).on_conflict_do_nothing(index_elements=[account_events.c.digest])
    result = await connection.execute(statement.returning(account_events.c.id))
    return result.scalar_one_or_none() is not None
