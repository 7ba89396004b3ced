"""Which service keys end soon, or ended of late, without a successor: a key that dies takes its service with it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.identity.service_keys.tables import service_keys

WARNED_BEFORE: Final = timedelta(days=14)

_K = service_keys.c
_HAS_NO_SUCCESSOR = sa.and_(_K.revoked_at.is_(None), _K.rotated_to.is_(None))


@dataclass(frozen=True)
class Expiry:
    """How the keys without a successor stand."""

    first_ends_at: datetime | None
    """When the first of those that are accepted ends; None where none ever does."""
    ending: int
    """How many end within the time of warning."""
    ended: int
    """How many ended no longer ago than that."""


async def read_expiry(connection: AsyncConnection, now: datetime) -> Expiry:
    """Read how the keys without a successor stand."""
    is_accepted = _K.expires_at > now
    query = sa.select(
        sa.func.min(_K.expires_at).filter(is_accepted),
        sa.func.count().filter(is_accepted, _K.expires_at <= now + WARNED_BEFORE),
        sa.func.count().filter(sa.not_(is_accepted), _K.expires_at > now - WARNED_BEFORE),
    ).where(_HAS_NO_SUCCESSOR, _K.expires_at.is_not(None))
    first_ends_at, ending, ended = (await connection.execute(query)).one()
    return Expiry(first_ends_at, ending, ended)


@dataclass(frozen=True)
class EndingKey:
    """A key that ends soon and has no successor."""

    key_id: str
    name: str
    expires_at: datetime


async def ending_keys(connection: AsyncConnection, now: datetime, *, limit: int = 50) -> list[EndingKey]:
    """Return the keys that end within the time of warning, the first to end first."""
    query = (
        sa.select(_K.key_id, _K.name, _K.expires_at)
        .where(_HAS_NO_SUCCESSOR, _K.expires_at > now, _K.expires_at <= now + WARNED_BEFORE)
        .order_by(_K.expires_at, _K.key_id)
        .limit(limit)
    )
    return [EndingKey(*row) for row in await connection.execute(query)]
