"""Delivering changes: fill the outbox from the feed, claim what is due, sign it, post it; and replays."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from enum import Enum

import structlog
from standardwebhooks import Webhook

from app.db.claims import backoff
from app.linked_accounts.feed import read_entries
from app.linked_accounts.feed_schemas import EventOut
from app.push import outbox
from app.push.outbox import Delivery
from app.push.sender import NotDelivered, Sender
from app.runtime import Runtime
from app.settings import Environment, PushDestination, PushSettings

logger = structlog.get_logger(__name__)

_FILL = 500
_CLAIM_MARGIN_SECONDS = 30.0
_FAILURE_LENGTH = 64  # of the column


class PushOutcome(Enum):
    """How an attempt ended, as the metric counts it."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"


async def push_once(runtime: Runtime, *, sender: Sender, destination: PushDestination) -> int:
    """Fill a destination's outbox and try one batch of it; return how many deliveries were tried."""
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
    """Post one delivery and record how it went."""
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
        await _record_failure(runtime, delivery, error)
        return
    async with runtime.database.transaction() as connection:
        await outbox.record_delivered(connection, delivery)
    _count(runtime, delivery, PushOutcome.DELIVERED)


async def _record_failure(runtime: Runtime, delivery: Delivery, error: NotDelivered) -> None:
    """Reschedule a delivery, or set it aside as dead after its last attempt."""
    retry_at = decide_retry(
        delivery, error.retry_after, settings=runtime.settings.push, now=runtime.clock.now(), jitter=runtime.jitter
    )
    async with runtime.database.transaction() as connection:
        await outbox.record_failure(connection, delivery, failure=error.failure[:_FAILURE_LENGTH], retry_at=retry_at)
    _count(runtime, delivery, PushOutcome.DEAD if retry_at is None else PushOutcome.FAILED)
    log = logger.error if retry_at is None else logger.warning
    log(
        "push_dead" if retry_at is None else "push_failed",
        destination=delivery.destination,
        position=delivery.position,
        failure=error.failure,
        attempts=delivery.attempts + 1,
    )


def decide_retry(
    delivery: Delivery, retry_after: float | None, *, settings: PushSettings, now: datetime, jitter: random.Random
) -> datetime | None:
    """Say when a delivery that failed is tried again; None after its last attempt."""
    if delivery.attempts + 1 >= settings.max_attempts:
        return None
    return now + backoff(
        delivery.attempts,
        first=settings.backoff_seconds,
        longest=settings.max_backoff_seconds,
        jitter=jitter,
        retry_after=retry_after,
    )


def _count(runtime: Runtime, delivery: Delivery, outcome: PushOutcome) -> None:
    runtime.metrics.pushes.labels(delivery.destination, outcome.value).inc()


async def replay_dead(runtime: Runtime, destination: str) -> int:
    """Make a destination's dead deliveries pending again; return how many."""
    async with runtime.database.transaction() as connection:
        return await outbox.replay_dead(connection, destination, now=runtime.clock.now())


async def replay_after(runtime: Runtime, destination: str, position: int) -> bool:
    """Deliver everything after a position once more; False if the destination is unknown, or not there yet."""
    async with runtime.database.transaction() as connection:
        return await outbox.replay_after(connection, destination, position)


def open_sender(runtime: Runtime) -> Sender:
    """Make the sender that these settings describe."""
    return Sender(
        timeout_seconds=runtime.settings.push.timeout_seconds,
        allow_private=runtime.settings.environment is Environment.DEVELOPMENT,
        inside=runtime.settings.push.inside,
        tls=runtime.settings.tls,
    )
