"""What has to happen to the ledger without a request; `jobs` does it under a lease."""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import forget_sessions, resolve_ended_sessions, resolve_open_sessions
from app.db.counters import counter_value, raise_counter
from app.db.leases import Lease, held
from app.linked_accounts.feed import forget_hints, read_feed
from app.runtime import Runtime

logger = structlog.get_logger(__name__)

_BATCH = 500
# How far into the change feed sessions have been resolved.
RESOLVED_UP_TO = "settled_sessions"


async def resolve_sessions(runtime: Runtime, lease: Lease) -> None:
    """Resolve sessions that the change feed has news about, and those that have ended. Raises LeaseLost."""
    more = True
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            after = await counter_value(connection, RESOLVED_UP_TO)
            entries = await read_feed(connection, after=after, limit=_BATCH)
            ended = await resolve_ended_sessions(connection, now=runtime.clock.now(), limit=_BATCH)
        if entries:
            owner_ids = sorted({entry.owner_id for entry in entries if entry.owner_id is not None})
            await _resolve_open(runtime, lease, owner_ids, up_to=entries[-1].position)
        more = len(entries) == _BATCH or ended == _BATCH


async def _resolve_open(runtime: Runtime, lease: Lease, owner_ids: Sequence[str], *, up_to: int) -> None:
    """Resolve what is open of these owners, and note how far into the feed that was done."""
    last: Session | None = None
    more = True
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            now = runtime.clock.now()
            last = await resolve_open_sessions(connection, owner_ids, after=last, now=now, limit=_BATCH)
            more = last is not None
            if not more:
                await raise_counter(connection, RESOLVED_UP_TO, up_to)


async def forget_old(runtime: Runtime, lease: Lease) -> None:
    """Remove sessions and hints that are older than their retention."""
    settings = runtime.settings
    more = True
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            now = runtime.clock.now()
            sessions = await forget_sessions(
                connection, now=now, retention=timedelta(days=settings.sessions.retention_days), limit=_BATCH
            )
            hints = await forget_hints(
                connection, before=now - timedelta(days=settings.sync.hint_retention_days), limit=_BATCH
            )
        if sessions or hints:
            logger.info("retention", sessions=sessions, hints=hints)
        more = _BATCH in (sessions, hints)
