"""Which user tokens have ended early, as one process knows it: never older than some seconds.

Revocations are numbered by the database, and a token says how many there were when it was made: clocks of replicas
differ, and a token that was made in the moment of a revocation must be told from one that was made after it.
"""

import asyncio
import hashlib
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import Clock
from app.db.counters import advance, counter_value
from app.db.database import Database
from app.db.tables import upsert
from app.identity.user_tokens.tables import user_token_revocations
from app.settings.user_tokens import LONGEST_USER_TOKEN

_R = user_token_revocations.c
_NUMBER: Final = "user_token_revocations"
# Every process knows of a revocation within 5 s: this, and what reading it may take.
_FRESH_SECONDS: Final = 3.0
_KEPT: Final = timedelta(seconds=2 * LONGEST_USER_TOKEN)


async def revocations_so_far(connection: AsyncConnection) -> int:
    """Return how many revocations there have been."""
    return await counter_value(connection, _NUMBER)


async def revoke(
    connection: AsyncConnection, owner_id: str, username: str | None, *, actor: str, now: datetime
) -> None:
    """End every user token of an owner, or of one of its users, that was made before this."""
    # The counter's row is locked until the transaction ends: who reads a number has seen all that are lower.
    number = await advance(connection, _NUMBER)
    values = {"number": number, "not_before": now, "revoked_by": actor}
    statement = upsert(connection, user_token_revocations, {"subject": _subject(owner_id, username), **values})
    await connection.execute(statement.on_conflict_do_update(index_elements=[_R.subject], set_=values))


async def forget_revocations(connection: AsyncConnection, *, now: datetime, limit: int) -> int:
    """Remove revocations that no token is left of; return how many."""
    old = sa.select(_R.number).where(_R.not_before < now - _KEPT).order_by(_R.number).limit(limit)
    result = await connection.execute(sa.delete(user_token_revocations).where(_R.number.in_(old)))
    return result.rowcount


def _subject(owner_id: str, username: str | None) -> str:
    """Name an owner or a user by a digest, so that an erased owner leaves nothing behind that names it."""
    return hashlib.sha256(f"{owner_id}\0{username or ''}".encode()).hexdigest()


class Revocations:
    """The revocations that one process knows."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Know none yet; the first question reads them."""
        self._database = database
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._seen = 0
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    def ended(self, owner_id: str, username: str, as_of: int) -> bool:
        """Tell whether a token that was made after so many revocations has been revoked, as far as is known here."""
        return any(self._numbers.get(_subject(owner_id, name), 0) > as_of for name in (username, None))

    async def refresh(self) -> None:
        """Read what has been revoked since the last time, if that is some seconds ago. Raises DatabaseUnavailable."""
        if self._is_fresh():
            return
        async with self._reading:
            if self._is_fresh():
                return
            began = self._clock.monotonic()
            query = sa.select(_R.number, _R.subject).where(_R.number > self._seen).order_by(_R.number)
            async with self._database.reading() as connection:
                rows = (await connection.execute(query)).all()
            for number, subject in rows:
                self._numbers[subject] = number
                self._seen = number
            self._read_at = began

    def look_again(self) -> None:
        """Have the next question read what has been revoked, however short ago the last did."""
        self._read_at = None

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock.monotonic() - self._read_at < _FRESH_SECONDS
