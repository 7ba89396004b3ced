"""The outbox: filled from the change feed, delivered in order per account; what cannot be delivered is kept as dead."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.claims import is_claimable
from app.db.repeats import await_standby
from app.db.tables import upsert
from app.linked_accounts.changes import Kind
from app.linked_accounts.feed import last_position, read_feed
from app.linked_accounts.tables import account_events
from app.push import plan
from app.push.tables import push_deliveries, push_destinations
from app.settings import PushDestination

_E = account_events.c
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


async def fill(
    connection: AsyncConnection, destination: PushDestination, *, settle: timedelta, now: datetime, limit: int
) -> int:
    """Put the next changes that a destination wants into its outbox; return how many changes were looked at.

    A new destination begins with what happens from now on; the feed has what happened before.
    """
    name = destination.name
    query = sa.select(_P.position).where(_P.name == name).with_for_update()
    position = (await connection.execute(query)).scalar_one_or_none()
    if position is None:
        newest = await last_position(connection)
        statement = upsert(connection, push_destinations, {"name": name, "position": newest})
        await connection.execute(statement.on_conflict_do_nothing(index_elements=[_P.name]))
        return 0
    entries = plan.whole(await read_feed(connection, after=position, limit=limit), limit)
    if not entries:
        return 0
    messages = [entry for entry in plan.one_for_each(entries) if plan.wants(destination, entry)]
    rows = [
        {
            "destination": name,
            "position": message.position,
            "account_id": message.account_id,
            "state": DeliveryState.PENDING.value,
            "due_at": max(now, message.at + settle) if message.kind == Kind.NEEDS_REAUTH.value else now,
        }
        for message in plan.without_flaps(messages, await _settling(connection, name, now), settle)
    ]
    if rows:
        await connection.execute(sa.insert(push_deliveries), rows)
    await connection.execute(sa.update(push_destinations).where(_P.name == name).values(position=entries[-1].position))
    flapped = {entry.account_id for entry in messages if entry.kind == Kind.RECOVERED.value}
    await _drop_settling(connection, name, flapped, now)
    return len(entries)


def _is_settling(destination: str, now: datetime) -> sa.ColumnElement[bool]:
    breaking = sa.exists().where(_E.position == _D.position, _E.kind == Kind.NEEDS_REAUTH.value)
    return sa.and_(
        _D.destination == destination,
        _IS_PENDING,
        _D.attempts == 0,
        _D.due_at > now,
        _D.claimed_until.is_(None),
        breaking,
    )


async def _settling(connection: AsyncConnection, destination: str, now: datetime) -> set[str]:
    """Return the accounts that are broken and of which nobody has been told yet."""
    query = sa.select(_D.account_id).where(_is_settling(destination, now)).distinct()
    return set((await connection.execute(query)).scalars())


async def _drop_settling(connection: AsyncConnection, destination: str, recovered: set[str], now: datetime) -> None:
    if recovered:
        is_theirs = sa.and_(_is_settling(destination, now), _D.account_id.in_(recovered))
        await connection.execute(sa.delete(push_deliveries).where(is_theirs))


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


@dataclass(frozen=True)
class Undelivered:
    """A delivery that waits or was given up, with how its last try ended."""

    position: int
    account_id: str
    state: DeliveryState
    kind: str | None
    attempts: int
    failure: str | None
    due_at: datetime


async def list_undelivered(
    connection: AsyncConnection, destination: str, *, state: DeliveryState | None, after: int, limit: int
) -> list[Undelivered]:
    """Return deliveries of a destination behind a position, in the order of the feed."""
    query = (
        sa.select(_D.position, _D.account_id, _D.state, _E.kind, _D.attempts, _D.failure, _D.due_at)
        .select_from(push_deliveries.outerjoin(account_events, _E.position == _D.position))
        .where(_D.destination == destination, _D.position > after)
    )
    if state is not None:
        query = query.where(_D.state == state.value)
    rows = await connection.execute(query.order_by(_D.position).limit(limit))
    return [Undelivered(row[0], row[1], DeliveryState(row[2]), *row[3:]) for row in rows]


async def is_known(connection: AsyncConnection, destination: str) -> bool:
    """Tell whether there is such a destination, or was one."""
    return await connection.scalar(sa.select(_P.name).where(_P.name == destination)) is not None


async def replay_one(connection: AsyncConnection, destination: str, position: int, *, now: datetime) -> bool:
    """Make one delivery due at once, dead or not, and even if it was accepted; False if there is no such change."""
    values = {
        "state": DeliveryState.PENDING.value,
        "attempts": 0,
        "due_at": now,
        "failure": None,
        "claimed_until": None,
    }
    known = await connection.execute(
        sa.update(push_deliveries).where(_D.destination == destination, _D.position == position).values(**values)
    )
    if known.rowcount:
        return True
    account_id = await connection.scalar(sa.select(_E.account_id).where(_E.position == position))
    filled = await connection.scalar(sa.select(_P.position).where(_P.name == destination))
    if account_id is None or filled is None or filled < position:
        return False
    row = {"destination": destination, "position": position, "account_id": account_id, **values}
    await connection.execute(sa.insert(push_deliveries).values(row))
    return True


async def replay_dead(connection: AsyncConnection, destination: str, *, now: datetime) -> int:
    """Make a destination's dead deliveries pending again; return how many."""
    result = await connection.execute(
        sa.update(push_deliveries)
        .where(_D.destination == destination, _IS_DEAD)
        .values(state=DeliveryState.PENDING.value, attempts=0, due_at=now, failure=None, claimed_until=None)
    )
    if not result.rowcount:
        await await_standby(connection, push_destinations, _P.name == destination)
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


async def told_up_to(connection: AsyncConnection, destinations: Collection[str]) -> int | None:
    """Return the position up to which nobody has to be told of a change any more; None where nobody is told."""
    if not destinations:
        return None
    rows = await connection.execute(sa.select(_P.name, _P.position))
    filled: dict[str, int] = {row.name: row.position for row in rows}
    pending: int | None = await connection.scalar(sa.select(sa.func.min(_D.position)))
    up_to = min(filled.get(name, 0) for name in destinations)
    return up_to if pending is None else min(up_to, pending - 1)


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
