"""What is told of changes, to whom, and when what failed is tried again. Pure."""

import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from app.db.claims import backoff
from app.inputs import fits_any
from app.linked_accounts.changes import Kind
from app.linked_accounts.feed import Entry
from app.settings import PushDestination, PushSettings


def whole(entries: Sequence[Entry], limit: int) -> Sequence[Entry]:
    """Leave a last entry for the next batch where what belongs to it may come behind it."""
    is_cut = len(entries) == limit > 1 and entries[-1].kind == Kind.UPDATED.value
    return entries[:-1] if is_cut else entries


def one_for_each(entries: Sequence[Entry]) -> list[Entry]:
    """Return what is told of changes: one message for one change.

    An account that breaks or recovers has changed its status, too; that is not told apart.
    """
    told: list[Entry] = []
    for number, entry in enumerate(entries):
        following = entries[number + 1] if number + 1 < len(entries) else None
        if following is None or not belongs_to(entry, following):
            told.append(entry)
    return told


def belongs_to(change: Entry, following: Entry) -> bool:
    """Tell whether an entry is the part of the one behind it that says which fields changed."""
    return (
        change.kind == Kind.UPDATED.value
        and following.kind in {Kind.NEEDS_REAUTH.value, Kind.RECOVERED.value}
        and (change.account_id, change.at, change.position + 1)
        == (following.account_id, following.at, following.position)
    )


def wants(destination: PushDestination, entry: Entry) -> bool:
    """Tell whether a destination is to be told of a change."""
    if destination.events and not fits_any(destination.events, entry.kind):
        return False
    return not destination.owners or (entry.owner_id is not None and fits_any(destination.owners, entry.owner_id))


def without_flaps(messages: Sequence[Entry], settling: Collection[str], settle: timedelta) -> list[Entry]:
    """Leave out accounts that broke and worked again within `settle`, however late that is looked at.

    `settling` are the accounts whose breaking waits in the outbox.
    """
    broken: dict[str, Entry | None] = dict.fromkeys(settling)
    left_out: set[int] = set()
    for message in messages:
        if message.kind == Kind.NEEDS_REAUTH.value:
            broken[message.account_id] = message
        elif message.kind == Kind.RECOVERED.value and message.account_id in broken:
            breaking = broken.pop(message.account_id)
            if breaking is None or message.at - breaking.at < settle:
                left_out |= {message.position, *((breaking.position,) if breaking is not None else ())}
    return [message for message in messages if message.position not in left_out]


def retry_at(
    attempts: int, retry_after: float | None, *, settings: PushSettings, now: datetime, jitter: random.Random
) -> datetime | None:
    """Say when a delivery that failed after `attempts` others is tried again; None after its last attempt."""
    if attempts + 1 >= settings.max_attempts:
        return None
    return now + backoff(
        attempts,
        first=settings.backoff_seconds,
        longest=settings.max_backoff_seconds,
        jitter=jitter,
        retry_after=retry_after,
    )
