"""The append-only log of what happened to accounts: audit trail and change feed in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.counters import advance
from app.linked_accounts.tables import account_events

_E = account_events.c
_FEED = "account_events"


class Source(StrEnum):
    """What made the broker look or act."""

    WEBHOOK = "webhook"
    CONFIRM = "confirm"
    REFRESH = "refresh"
    SWEEP = "sweep"
    DISCONNECT = "disconnect"


class Kind(StrEnum):
    """What happened. A hint is StackOne's event as received: kept for audit, never part of the feed."""

    HINT = "hint"
    LINKED = "account.linked"
    UPDATED = "account.updated"
    NEEDS_REAUTH = "account.needs_reauth"
    RECOVERED = "account.recovered"
    OWNER_CHANGED = "account.owner_changed"
    DISCONNECT_REQUESTED = "account.disconnect_requested"
    UNLINKED = "account.unlinked"


@dataclass(frozen=True)
class Change:
    """One entry of the feed, before it has a position."""

    kind: Kind
    account_id: str
    owner_id: str | None
    provider: str | None
    changes: Mapping[str, Any] | None = None
    cause: tuple[Source, str] | None = None
    """Source and actor, where they are not those of the transaction."""


async def append_changes(
    connection: AsyncConnection, changes: Sequence[Change], *, source: Source, actor: str, now: datetime
) -> None:
    """Append changes to the feed, in order; must be the last thing its transaction does.

    Positions come from a counter whose row stays locked until commit, so a position becomes visible only after every
    lower one: a reader that remembers the highest position it saw misses nothing.
    """
    if not changes:
        return
    last = await advance(connection, _FEED, by=len(changes))
    first = last - len(changes) + 1
    await connection.execute(
        sa.insert(account_events),
        [
            {
                "position": first + offset,
                "account_id": change.account_id,
                "owner_id": change.owner_id,
                "provider": change.provider,
                "kind": change.kind.value,
                "source": (change.cause[0] if change.cause else source).value,
                "actor": change.cause[1] if change.cause else actor,
                "at": now,
                "changes": dict(change.changes) if change.changes is not None else None,
            }
            for offset, change in enumerate(changes)
        ],
    )


async def forget_hints(connection: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Remove hints that are older than a moment; changes of the feed are kept. Return how many were removed."""
    old = sa.select(_E.id).where(_E.position.is_(None), _E.at < before).order_by(_E.at).limit(limit)
    result = await connection.execute(sa.delete(account_events).where(_E.id.in_(old)))
    return result.rowcount
