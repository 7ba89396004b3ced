"""Deliver changes: fill the outbox from the feed, claim what is due, sign it, post it."""

import asyncio
from datetime import UTC, timedelta

import structlog
from standardwebhooks import Webhook

from app.db.claims import backoff
from app.linked_accounts.feed import read_entries
from app.linked_accounts.feed_schemas import EventOut
from app.push import outbox
from app.push.outbox import Delivery
from app.push.sender import NotDelivered, Sender
from app.runtime import Runtime
from app.settings import PushDestination

logger = structlog.get_logger(__name__)

_FILL = 500
_CLAIM_MARGIN_SECONDS = 30.0


async def push_once(runtime: Runtime, *, sender: Sender, destination: PushDestination) -> int:
    """Fill a destination's outbox and deliver one batch of it; return how many deliveries were tried."""
    settings = runtime.settings.push
    async with runtime.database.transaction() as connection:
        await outbox.fill(connection, destination.name, now=runtime.clock.now(), limit=_FILL)
    async with runtime.database.transaction() as connection:
        deliveries = await outbox.claim(
            connection,
            destination.name,
            now=runtime.clock.now(),
            claim_for=timedelta(seconds=settings.timeout_seconds + _CLAIM_MARGIN_SECONDS),
            longest_wait=timedelta(seconds=settings.max_backoff_seconds),
            limit=settings.batch,
        )
    async with asyncio.TaskGroup() as tasks:
        for delivery in deliveries:
            tasks.create_task(_deliver(runtime, sender, delivery, destination))
    return len(deliveries)


async def _deliver(runtime: Runtime, sender: Sender, delivery: Delivery, destination: PushDestination) -> None:
    async with runtime.database.reading() as connection:
        [entry] = await read_entries(connection, [delivery.position])
    body = EventOut.of(entry).model_dump_json()
    message_id = f"evt_{delivery.position}"
    # Signed anew for each try: receivers refuse timestamps that are minutes old.
    now = runtime.clock.now()
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(destination.secret.get_secret_value()).sign(message_id, now.astimezone(UTC), body),
    }
    try:
        await sender.post(destination.url, body.encode(), headers)
    except NotDelivered as error:
        await _reschedule(runtime, delivery, error)
        return
    async with runtime.database.transaction() as connection:
        await outbox.delivered(connection, delivery)
    runtime.metrics.pushes.labels(delivery.destination, "delivered").inc()


async def _reschedule(runtime: Runtime, delivery: Delivery, error: NotDelivered) -> None:
    """Try a delivery again later, or set it aside as dead after its last try."""
    settings = runtime.settings.push
    is_last = delivery.attempts + 1 >= settings.max_attempts
    wait = backoff(
        delivery.attempts, first=settings.backoff_seconds, longest=settings.max_backoff_seconds, jitter=runtime.jitter
    )
    if error.retry_after is not None:
        wait = max(wait, timedelta(seconds=min(error.retry_after, settings.max_backoff_seconds)))
    retry_at = None if is_last else runtime.clock.now() + wait
    async with runtime.database.transaction() as connection:
        await outbox.failed(connection, delivery, failure=error.failure[:64], retry_at=retry_at)
    runtime.metrics.pushes.labels(delivery.destination, "dead" if is_last else "failed").inc()
    log = logger.error if is_last else logger.warning
    log(
        "push_dead" if is_last else "push_failed",
        destination=delivery.destination,
        position=delivery.position,
        failure=error.failure,
        attempts=delivery.attempts + 1,
    )


def open_sender(runtime: Runtime) -> Sender:
    """Make the sender that the settings ask for."""
    return Sender(
        timeout_seconds=runtime.settings.push.timeout_seconds,
        allow_private=runtime.settings.environment == "development",
    )
