"""The push loop: fill the outbox from the feed, claim what is due, sign it, post it. Runs in every process."""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, timedelta

import structlog
from standardwebhooks import Webhook

from app.linked_accounts.due import backoff
from app.linked_accounts.feed import read_entries
from app.linked_accounts.feed_schemas import EventOut
from app.push import outbox
from app.push.outbox import Parcel
from app.push.sender import NotDelivered, Wire
from app.runtime import Runtime
from app.settings import PushDestination

logger = structlog.get_logger(__name__)

_FILL = 500
_IDLE_SECONDS = 1.0
_CLAIM_MARGIN_SECONDS = 30.0


@dataclass
class Pusher:
    """The push of one process."""

    runtime: Runtime
    wire: Wire
    jitter: random.Random = field(default_factory=random.Random)

    async def run_forever(self) -> None:
        """Push until cancelled, to each destination by itself: one that hangs must not keep news from the others."""
        async with asyncio.TaskGroup() as tasks:
            for destination in self.runtime.settings.push.destinations:
                tasks.create_task(self._push_forever(destination))
            tasks.create_task(asyncio.Event().wait())

    async def _push_forever(self, destination: PushDestination) -> None:
        while True:
            if not await self.push(destination):
                await asyncio.sleep(_IDLE_SECONDS)

    async def run_once(self) -> int:
        """Deliver one batch to each destination; return how many deliveries were tried."""
        return sum([await self.push(destination) for destination in self.runtime.settings.push.destinations])

    async def push(self, destination: PushDestination) -> int:
        """Fill a destination's outbox and deliver one batch of it; return how many deliveries were tried."""
        settings = self.runtime.settings.push
        async with self.runtime.database.transaction() as connection:
            await outbox.fill(connection, destination.name, now=self.runtime.clock.now(), limit=_FILL)
        async with self.runtime.database.transaction() as connection:
            parcels = await outbox.claim(
                connection,
                destination.name,
                now=self.runtime.clock.now(),
                claim_for=timedelta(seconds=settings.timeout_seconds + _CLAIM_MARGIN_SECONDS),
                longest_wait=timedelta(seconds=settings.max_backoff_seconds),
                limit=settings.batch,
            )
        async with asyncio.TaskGroup() as tasks:
            for parcel in parcels:
                tasks.create_task(self._deliver(parcel, destination))
        return len(parcels)

    async def _deliver(self, parcel: Parcel, destination: PushDestination) -> None:
        async with self.runtime.database.reading() as connection:
            [entry] = await read_entries(connection, [parcel.position])
        body = EventOut.of(entry).model_dump_json()
        message_id = f"evt_{parcel.position}"
        # Signed anew for each try: receivers refuse timestamps that are minutes old.
        now = self.runtime.clock.now()
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(destination.secret.get_secret_value()).sign(
                message_id, now.astimezone(UTC), body
            ),
        }
        try:
            await self.wire.post(destination.url, body.encode(), headers)
        except NotDelivered as error:
            await self._put_off(parcel, error)
            return
        async with self.runtime.database.transaction() as connection:
            await outbox.taken(connection, parcel)
        self.runtime.metrics.pushes.labels(parcel.destination, "taken").inc()

    async def _put_off(self, parcel: Parcel, error: NotDelivered) -> None:
        settings = self.runtime.settings.push
        is_last = parcel.attempts + 1 >= settings.max_attempts
        wait = backoff(
            parcel.attempts, first=settings.backoff_seconds, longest=settings.max_backoff_seconds, jitter=self.jitter
        )
        if error.retry_after is not None:
            wait = max(wait, timedelta(seconds=min(error.retry_after, settings.max_backoff_seconds)))
        retry_at = None if is_last else self.runtime.clock.now() + wait
        async with self.runtime.database.transaction() as connection:
            await outbox.failed(connection, parcel, failure=error.failure[:64], retry_at=retry_at)
        self.runtime.metrics.pushes.labels(parcel.destination, "dead" if is_last else "failed").inc()
        log = logger.error if is_last else logger.warning
        log(
            "push_dead" if is_last else "push_failed",
            destination=parcel.destination,
            position=parcel.position,
            failure=error.failure,
            attempts=parcel.attempts + 1,
        )


def open_wire(runtime: Runtime) -> Wire:
    """Make the wire that the settings ask for."""
    return Wire(
        timeout_seconds=runtime.settings.push.timeout_seconds,
        allow_private=runtime.settings.environment == "development",
    )
