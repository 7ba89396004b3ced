"""The record of sweeps: requested by anybody, carried out by who holds the lease, resumed where a crash left them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.leases import Lease, held
from app.linked_accounts.store import take_read_ticket
from app.sync.tables import SweepState, sweeps

_S = sweeps.c
_UNFINISHED = (SweepState.RUNNING, SweepState.REQUESTED)
# An interrupted sweep is taken up again, but not for ever.
_RESUMED_WITHIN = timedelta(hours=24)
# Six weeks of hourly sweeps.
_KEPT = 1000


@dataclass(frozen=True)
class Sweep:
    """One sweep as recorded."""

    id: int
    state: SweepState
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    max_removal_percent: float | None
    start_ticket: int | None
    next_page: int
    complete: bool | None
    last_suspect: str | None
    listed: int
    added: int
    changed: int
    removed: int
    suspects: int
    reason: str | None

    @property
    def drift(self) -> int:
        """How many accounts the store had wrong."""
        return self.added + self.changed + self.removed


_FIELDS = tuple(_S[name] for name in Sweep.__dataclass_fields__)
_PROGRESS = (
    "state", "finished_at", "reason", "next_page", "complete", "last_suspect", "listed", "added", "changed", "removed",
    "suspects",
)  # fmt: skip


async def unfinished(connection: AsyncConnection) -> Sweep | None:
    """Return the sweep that runs, was interrupted or waits."""
    query = sa.select(*_FIELDS).where(_S.state.in_(_UNFINISHED)).order_by(_S.state.desc(), _S.id).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return Sweep(*row) if row is not None else None


async def recent(connection: AsyncConnection, limit: int) -> Sequence[Sweep]:
    """Return the newest finished sweeps, newest first."""
    query = sa.select(*_FIELDS).where(_S.finished_at.is_not(None)).order_by(_S.id.desc()).limit(limit)
    return [Sweep(*row) for row in await connection.execute(query)]


@dataclass(frozen=True)
class Past:
    """What became of the sweeps that came to their end."""

    last: Sweep | None
    """The newest, however it ended."""
    done_at: datetime | None
    """When one last put the store right."""
    is_first_fill: bool
    """Whether none had done so before the newest: what that found was never missed, it had never been asked for."""


async def past(connection: AsyncConnection) -> Past:
    """Return what became of the sweeps that came to their end."""
    newest = await recent(connection, 1)
    is_done = _S.state == SweepState.DONE
    done_at = await connection.scalar(sa.select(sa.func.max(_S.finished_at)).where(is_done))
    before = sa.exists().where(is_done, _S.id < newest[0].id) if newest else sa.false()
    return Past(newest[0] if newest else None, done_at, not await connection.scalar(sa.select(before)))


async def request(
    connection: AsyncConnection, *, by: str, now: datetime, max_removal_percent: float | None
) -> tuple[Sweep, bool]:
    """Ask for a sweep; return it, or the unfinished one in its place, and whether it is new.

    A share named on purpose also counts for a sweep that still waits; one that runs keeps the share it began with.
    """
    # Its row is the lock: of several requests at once, each after the first finds the sweep of the first.
    await take_read_ticket(connection)
    known = await unfinished(connection)
    if known is not None:
        if known.state is SweepState.REQUESTED and max_removal_percent is not None:
            await _write(connection, known.id, {"max_removal_percent": max_removal_percent})
            known = replace(known, max_removal_percent=max_removal_percent)
        return known, False
    values = {
        "state": SweepState.REQUESTED,
        "requested_by": by,
        "requested_at": now,
        "max_removal_percent": max_removal_percent,
    }
    row = (await connection.execute(sa.insert(sweeps).values(values).returning(*_FIELDS))).one()
    return Sweep(*row), True


async def begin(
    connection: AsyncConnection, lease: Lease, *, by: str, now: datetime, max_removal_percent: float | None
) -> Sweep:
    """Take up the unfinished sweep, or begin a new one."""
    await held(connection, lease)
    sweep = await unfinished(connection)
    if sweep is not None and sweep.started_at is not None and abs(now - sweep.started_at) > _RESUMED_WITHIN:
        reason = "interrupted, and not taken up again for a day"
        await _write(connection, sweep.id, {"state": SweepState.FAILED, "finished_at": now, "reason": reason})
        sweep = await unfinished(connection)
    if sweep is None:
        sweep, _ = await request(connection, by=by, now=now, max_removal_percent=max_removal_percent)
    values: dict[str, Any] = {}
    if max_removal_percent is not None:
        values["max_removal_percent"] = max_removal_percent
    if sweep.state is SweepState.REQUESTED:
        ticket = await take_read_ticket(connection)
        values |= {"state": SweepState.RUNNING, "started_at": now, "start_ticket": ticket}
        await connection.execute(sa.delete(sweeps).where(_S.id <= sweep.id - _KEPT, _S.finished_at.is_not(None)))
    if values:
        await _write(connection, sweep.id, values)
    row = (await connection.execute(sa.select(*_FIELDS).where(_S.id == sweep.id))).one()
    return Sweep(*row)


async def record(connection: AsyncConnection, lease: Lease, sweep: Sweep) -> None:
    """Write progress down, in the transaction of the work it stands for. Raises LeaseLost if another has taken over."""
    await held(connection, lease)
    await _write(connection, sweep.id, {name: getattr(sweep, name) for name in _PROGRESS})


async def _write(connection: AsyncConnection, sweep_id: int, values: dict[str, Any]) -> None:
    await connection.execute(sa.update(sweeps).where(_S.id == sweep_id).values(**values))
