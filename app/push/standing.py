"""How far behind each destination is."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.linked_accounts.tables import account_events
from app.push.outbox import DeliveryState
from app.push.tables import push_deliveries, push_destinations

_D = push_deliveries.c
_P = push_destinations.c
_E = account_events.c
_IS_PENDING = _D.state == DeliveryState.PENDING.value
_IS_DEAD = _D.state == DeliveryState.DEAD.value


@dataclass(frozen=True)
class Standing:
    """How far behind a destination is."""

    destination: str
    pending: int
    """Changes that it has still to be told, those included that have not come into its outbox yet."""
    dead: int
    oldest_at: datetime | None
    """When the first of them happened."""


async def standings(connection: AsyncConnection, destinations: Collection[str], *, head: int) -> list[Standing]:
    """Return how far behind each of these destinations is; `head` is the position of the newest change."""
    waiting = (
        sa.select(
            _P.name,
            _P.position,
            sa.func.count(_D.position).filter(_IS_PENDING).label("pending"),
            sa.func.count(_D.position).filter(_IS_DEAD).label("dead"),
            sa.func.min(_D.position).filter(_IS_PENDING).label("first"),
        )
        .select_from(push_destinations.outerjoin(push_deliveries, _D.destination == _P.name))
        .where(_P.name.in_(destinations))
        .group_by(_P.name, _P.position)
    )
    found = []
    for row in (await connection.execute(waiting)).all():
        # What is in the outbox is older than what is not.
        behind = _E.position == row.first if row.first is not None else _E.position > row.position
        oldest = sa.select(_E.at).where(behind).order_by(_E.position).limit(1)
        pending = row.pending + max(head - row.position, 0)
        found.append(Standing(row.name, pending, row.dead, await connection.scalar(oldest) if pending else None))
    return found
