"""Delivering changes: fill the outbox from the feed, claim what is due, sign it, post it; and replays."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, timedelta
from enum import Enum

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection
from standardwebhooks import Webhook

from app.errors import NotFound
from app.linked_accounts.feed import read_entries
from app.push import outbox, plan
from app.push.messages import ChangeMessage, PingMessage
from app.push.outbox import Backlog, Delivery, DeliveryState, Undelivered
from app.push.sender import NotDelivered, Sender
from app.runtime import Runtime
from app.settings import Environment, PushDestination
from app.traces import Kind

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
        settle = timedelta(seconds=settings.settle_seconds)
        await outbox.fill(connection, destination, settle=settle, now=runtime.clock.now(), limit=_FILL)
    async with runtime.database.transaction() as connection:
        deliveries = await outbox.claim(
            connection,
            destination.name,
            now=runtime.clock.now(),
            claim_for=timedelta(seconds=settings.timeout_seconds + _CLAIM_MARGIN_SECONDS),
            longest_wait=timedelta(seconds=max(settings.max_backoff_seconds, settings.settle_seconds)),
            limit=settings.batch,
        )
    async with asyncio.TaskGroup() as tasks:
        for delivery in deliveries:
            tasks.create_task(_deliver_one(runtime, sender, delivery, destination))
    return len(deliveries)


async def _deliver_one(runtime: Runtime, sender: Sender, delivery: Delivery, destination: PushDestination) -> None:
    with runtime.traces.span("push", Kind.PRODUCER, broker__destination=destination.name) as span:
        failure = await _deliver(runtime, sender, delivery, destination)
        if failure is not None:
            span.failed(failure)


async def _deliver(runtime: Runtime, sender: Sender, delivery: Delivery, destination: PushDestination) -> str | None:
    """Post one delivery and record how it went; return how it failed."""
    async with runtime.database.reading() as connection:
        entries = await read_entries(connection, [delivery.position - 1, delivery.position])
    body = ChangeMessage.of(entries, delivery.position, runtime.settings.invitations).model_dump_json(by_alias=True)
    try:
        await _post(runtime, sender, destination, f"evt_{delivery.position}", body)
    except NotDelivered as error:
        await _record_failure(runtime, delivery, error)
        return error.failure
    async with runtime.database.transaction() as connection:
        await outbox.record_delivered(connection, delivery)
    _count(runtime, delivery, PushOutcome.DELIVERED)
    return None


async def _post(runtime: Runtime, sender: Sender, destination: PushDestination, message_id: str, body: str) -> None:
    """Sign a message and post it. Raises NotDelivered."""
    # Signed anew for each try: receivers refuse timestamps that are minutes old.
    now = runtime.clock.now()
    signed = [
        Webhook(secret.get_secret_value()).sign(message_id, now.astimezone(UTC), body)
        for secret in destination.signing_secrets
    ]
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        # Standard Webhooks: several are parted by spaces, and one that fits is enough.
        "webhook-signature": " ".join(signed),
        **runtime.traces.headers(),
    }
    await sender.post(destination.url, body.encode(), headers)


async def send_test(runtime: Runtime, name: str) -> str | None:
    """Send a destination a message of the type `test`, now and once; return how it failed. Raises NotFound."""
    destination = next((one for one in runtime.settings.push.destinations if one.name == name), None)
    if destination is None:
        raise NotFound
    body = PingMessage.at(runtime.clock.now(), name).model_dump_json()
    sender = open_sender(runtime)
    try:
        await _post(runtime, sender, destination, runtime.new_id("test"), body)
    except NotDelivered as error:
        return error.failure
    finally:
        await sender.close()
    return None


async def _record_failure(runtime: Runtime, delivery: Delivery, error: NotDelivered) -> None:
    """Reschedule a delivery, or set it aside as dead after its last attempt."""
    retry_at = plan.retry_at(
        delivery.attempts,
        error.retry_after,
        settings=runtime.settings.push,
        now=runtime.clock.now(),
        jitter=runtime.jitter,
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


def _count(runtime: Runtime, delivery: Delivery, outcome: PushOutcome) -> None:
    runtime.metrics.pushes.labels(delivery.destination, outcome.value).inc()


async def list_deliveries(
    runtime: Runtime, destination: str, *, state: DeliveryState | None, after: int, limit: int
) -> tuple[Sequence[Undelivered], bool]:
    """Return deliveries of a destination that wait or are dead, and whether there are more. Raises NotFound."""
    async with runtime.database.reading() as connection:
        await _require(connection, runtime, destination)
        found = await outbox.list_undelivered(connection, destination, state=state, after=after, limit=limit + 1)
    return found[:limit], len(found) > limit


async def list_destinations(runtime: Runtime) -> Sequence[Backlog]:
    """Return how each destination of the settings stands, in the order of their names."""
    async with runtime.database.reading() as connection:
        known = {one.destination: one for one in await outbox.backlogs(connection)}
    names = sorted(one.name for one in runtime.settings.push.destinations)
    return [known.get(name) or Backlog(name, 0, 0, None) for name in names]


async def replay_one(runtime: Runtime, destination: str, position: int) -> None:
    """Deliver one change once more. Raises NotFound for an unknown destination or change."""
    async with runtime.database.transaction() as connection:
        await _require(connection, runtime, destination)
        if not await outbox.replay_one(connection, destination, position, now=runtime.clock.now()):
            raise NotFound


async def _require(connection: AsyncConnection, runtime: Runtime, destination: str) -> None:
    """Raise NotFound unless there is, or was, such a destination."""
    names = {one.name for one in runtime.settings.push.destinations}
    if destination not in names and not await outbox.is_known(connection, destination):
        raise NotFound


async def replay_dead(runtime: Runtime, destination: str) -> int:
    """Make a destination's dead deliveries pending again; return how many. Raises NotFound for an unknown one."""
    async with runtime.database.transaction() as connection:
        await _require(connection, runtime, destination)
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
