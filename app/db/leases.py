"""Leases: of many replicas, one at a time does a piece of work.

A lease is a row with a holder and an end, judged by the database's clock alone, so that replicas' clocks do not matter.
Each change of holder raises the fence. A holder that was paused beyond its lease may still run when the next one has
begun; whatever it writes must therefore carry its fence and be refused once that is old (`held`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database
from app.db.tables import metadata, upsert
from app.errors import AppError, Unavailable

logger = structlog.get_logger(__name__)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False, comment="raised with each new holder"),
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False, comment="by the database's clock; 0: given back"),
    comment="Who does what only one replica may do.",
)

_C = leases.c
_NOW_MS = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
}


class LeaseLost(Unavailable):
    """Somebody else holds the lease now: stop at once, and write nothing."""


@dataclass(frozen=True)
class Lease:
    """A piece of work that is this holder's until the lease ends."""

    name: str
    holder: str
    fence: int


async def acquire(connection: AsyncConnection, name: str, holder: str, *, seconds: float) -> Lease | None:
    """Take a lease that is free or over, or prolong one's own; return None while somebody else holds it."""
    now: sa.ColumnElement[int] = sa.literal_column(_NOW_MS[connection.dialect.name], sa.BigInteger)
    until = now + int(seconds * 1000)
    statement = upsert(connection, leases, {"name": name, "holder": holder, "fence": 1, "expires_at_ms": until})
    statement = statement.on_conflict_do_update(
        index_elements=[_C.name],
        set_={
            "holder": holder,
            "fence": sa.case((_C.holder == holder, _C.fence), else_=_C.fence + 1),
            "expires_at_ms": until,
        },
        where=sa.or_(_C.expires_at_ms <= now, _C.holder == holder),
    )
    fence = (await connection.execute(statement.returning(_C.fence))).scalar_one_or_none()
    return Lease(name, holder, int(fence)) if fence is not None else None


async def held(connection: AsyncConnection, lease: Lease) -> None:
    """Make sure, until the transaction ends, that nobody else has taken the lease. Raises LeaseLost."""
    query = sa.select(_C.fence).where(_C.name == lease.name, _C.holder == lease.holder).with_for_update(read=True)
    if (await connection.execute(query)).scalar_one_or_none() != lease.fence:
        raise LeaseLost("another process has taken over")


async def release(connection: AsyncConnection, lease: Lease) -> None:
    """Give a lease back before its end."""
    statement = sa.update(leases).where(_C.name == lease.name, _C.holder == lease.holder, _C.fence == lease.fence)
    await connection.execute(statement.values(expires_at_ms=0))


@asynccontextmanager
async def holding(database: Database, name: str, holder: str, *, seconds: float) -> AsyncIterator[Lease | None]:
    """Hold a lease while the block runs, prolonging it; the value is None while somebody else holds it."""
    async with database.autocommit() as connection:
        lease = await acquire(connection, name, holder, seconds=seconds)
    if lease is None:
        yield None
        return
    heartbeat = asyncio.create_task(_prolong(database, lease, seconds))
    try:
        yield lease
    finally:
        heartbeat.cancel()
        await asyncio.gather(heartbeat, return_exceptions=True)
        try:
            async with database.autocommit() as connection:
                await release(connection, lease)
        except AppError:
            # It ends by itself.
            logger.warning("lease_not_released", lease=lease.name)


async def _prolong(database: Database, lease: Lease, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds / 3)
        try:
            async with database.autocommit() as connection:
                kept = await acquire(connection, lease.name, lease.holder, seconds=seconds)
        except AppError:
            continue
        if kept is None:
            # What the block still writes is refused by `held`.
            logger.warning("lease_lost", lease=lease.name)
            return
