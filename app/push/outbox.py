"""The outbox: filled from the change feed, delivered in order per account; what cannot be delivered is kept as dead."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.claims import is_claimable
from app.db.tables import upsert
from app.linked_accounts.feed import last_position, read_feed
from app.push.tables import push_deliveries, push_destinations

_D = push_deliveries.c
_P = push_destinations.c


class DeliveryState(Enum):
    """How a delivery in the outbox stands; delivered ones are removed."""

    PENDING = "pending"
    DEAD = "dead"


@dataclass(frozen=True)
class Delivery:
    """One change on its way to one destination."""

    destination: str
    position: int
    account_id: str
    attempts: int


_DELIVERY = tuple(_D[name] for name in Delivery.__dataclass_fields__)
_IS_PENDING = _D.state == DeliveryState.PENDING.value
_IS_DEAD = _D.state == DeliveryState.DEAD.value


async def fill(connection: AsyncConnection, destination: str, *, now: datetime, limit: int) -> int:
    """Put the next changes into a destination's outbox; return how many.

    A new destination begins with what happens from now on; the feed has what happened before.
    """
    query = sa.select(_P.position).where(_P.name == destination).with_for_update()
    position = (await connection.execute(query)).scalar_one_or_none()
    if position is None:
        newest = await last_position(connection)
        statement = upsert(connection, push_destinations, {"name": destination, "position": newest})
        await connection.execute(statement.on_conflict_do_nothing(index_elements=[_P.name]))
        return 0
    entries = await read_feed(connection, after=position, limit=limit)
    if not entries:
        return 0
    rows = [
        {
            "destination": destination,
            "position": entry.position,
            "account_id": entry.account_id,
            "state": DeliveryState.PENDING.value,
            "due_at": now,
        }
        for entry in entries
    ]
    await connection.execute(sa.insert(push_deliveries), rows)
    await connection.execute(
        sa.update(push_destinations).where(_P.name == destination).values(position=entries[-1].position)
    )
    return len(entries)


async def claim(
    connection: AsyncConnection,
    destination: str,
    *,
    now: datetime,
    claim_for: timedelta,
    longest_wait: timedelta,
    limit: int,
) -> list[Delivery]:
    """Claim due deliveries, of each account at most the first that is pending: order is kept per account."""
    earlier = push_deliveries.alias("earlier")
    chosen = (
        sa.select(_D.destination, _D.position)
        .where(
            _IS_PENDING,
            _D.destination == destination,
            is_claimable(_D.due_at, _D.claimed_until, now, longest_wait=longest_wait, claim_for=claim_for),
            ~sa.exists().where(
                earlier.c.destination == _D.destination,
                earlier.c.account_id == _D.account_id,
                earlier.c.position < _D.position,
                earlier.c.state == DeliveryState.PENDING.value,
            ),
        )
        .order_by(_D.due_at, _D.position)
        .limit(limit)
        .with_for_update(skip_locked=True, of=push_deliveries)
    )
    rows = (await connection.execute(chosen)).all()
    if not rows:
        return []
    keys = [(row.destination, row.position) for row in rows]
    result = await connection.execute(
        sa.update(push_deliveries)
        .where(sa.tuple_(_D.destination, _D.position).in_(keys))
        .values(claimed_until=now + claim_for)
        .returning(*_DELIVERY)
    )
    return [Delivery(*row) for row in result]


async def record_delivered(connection: AsyncConnection, delivery: Delivery) -> None:
    """Remove a delivery that the destination has accepted."""
    await connection.execute(sa.delete(push_deliveries).where(*_is(delivery)))


async def record_failure(
    connection: AsyncConnection, delivery: Delivery, *, failure: str, retry_at: datetime | None
) -> None:
    """Reschedule a delivery, or set it aside as dead where it is not to be tried again."""
    values: dict[str, object] = {"attempts": delivery.attempts + 1, "failure": failure, "claimed_until": None}
    values |= {"state": DeliveryState.DEAD.value} if retry_at is None else {"due_at": retry_at}
    await connection.execute(sa.update(push_deliveries).where(*_is(delivery)).values(**values))


async def replay_dead(connection: AsyncConnection, destination: str, *, now: datetime) -> int:
    """Make a destination's dead deliveries pending again; return how many."""
    result = await connection.execute(
        sa.update(push_deliveries)
        .where(_D.destination == destination, _IS_DEAD)
        .values(state=DeliveryState.PENDING.value, attempts=0, due_at=now, failure=None, claimed_until=None)
    )
    return result.rowcount


async def replay_after(connection: AsyncConnection, destination: str, position: int) -> bool:
    """Deliver everything after a position once more.

    Returns False for an unknown destination, and for one that has not come to that position yet.
    """
    await connection.execute(sa.delete(push_deliveries).where(_D.destination == destination, _D.position > position))
    result = await connection.execute(
        sa.update(push_destinations).where(_P.name == destination, _P.position >= position).values(position=position)
    )
    return result.rowcount == 1


@dataclass(frozen=True)
class Backlog:
    """How a destination stands."""

    destination: str
    pending: int
    dead: int
    oldest: datetime | None


async def backlogs(connection: AsyncConnection) -> list[Backlog]:
    """Return how each destination that ever had a delivery stands."""
    waiting = sa.func.count().filter(_IS_PENDING)
    dead = sa.func.count().filter(_IS_DEAD)
    query = (
        sa.select(_P.name, waiting, dead, sa.func.min(_D.due_at))
        .select_from(push_destinations.outerjoin(push_deliveries, _D.destination == _P.name))
        .group_by(_P.name)
        .order_by(_P.name)
    )
    return [Backlog(*row) for row in await connection.execute(query)]


def _is(delivery: Delivery) -> tuple[sa.ColumnElement[bool], ...]:
    # Where the attempts are other ones, our claim ran out and somebody else has tried the delivery since.
    return (
        _D.destination == delivery.destination,
        _D.position == delivery.position,
        _D.attempts == delivery.attempts,
        _IS_PENDING,
    )
