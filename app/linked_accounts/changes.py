"""What can happen to accounts: what the append-only log of changes, which is also the feed, consists of."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Source(Enum):
    """What made the broker look or act."""

    WEBHOOK = "webhook"
    CONFIRM = "confirm"
    REFRESH = "refresh"
    SWEEP = "sweep"
    DISCONNECT = "disconnect"
    REMINDER = "reminder"


class Witness(Enum):
    """What else than the read at hand says that an account is gone: one answer alone never removes it."""

    EVENT = "event"
    """A signed account.deleted."""
    LISTING = "listing"
    """A complete listing that lacks it."""
    DELETION = "deletion"
    """Our own DELETE, which StackOne acknowledged."""
    READ = "read"
    """An earlier read of the same kind, long enough ago."""


class Kind(Enum):
    """What happened. A hint is StackOne's event as received: kept for audit, never part of the feed."""

    HINT = "hint"
    LINKED = "account.linked"
    UPDATED = "account.updated"
    NEEDS_REAUTH = "account.needs_reauth"
    STILL_BROKEN = "account.still_broken"
    RECOVERED = "account.recovered"
    OWNER_CHANGED = "account.owner_changed"
    DISCONNECT_REQUESTED = "account.disconnect_requested"
    UNLINKED = "account.unlinked"


FEED_KINDS = tuple(kind.value for kind in Kind if kind is not Kind.HINT)
"""The kinds that readers of the feed and push destinations may meet."""


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
