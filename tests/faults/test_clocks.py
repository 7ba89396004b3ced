"""Clocks of replicas that differ or jump: claims are respected, and nothing waits for a date that never comes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.db.database import Database
from app.db.engine import open_engine
from app.linked_accounts import due
from app.linked_accounts.tables import linked_accounts
from app.push import outbox
from app.push.tables import push_deliveries, push_destinations
from app.settings import DatabaseSettings

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
# Of a replica whose clock is ahead, and of one whose clock is right: whether the first one's claim holds.
SKEWS = [
    pytest.param(timedelta(0), True, id="the same"),
    pytest.param(timedelta(seconds=1), True, id="a second ahead"),
    pytest.param(timedelta(seconds=50), True, id="most of a claim ahead"),
    pytest.param(timedelta(days=2), False, id="two days ahead"),
]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Open a database."""
    opened = Database(open_engine(DatabaseSettings(url=database_url)))
    yield opened
    await opened.close()


async def claim_account(database: Database, now: datetime) -> int:
    return len(await due.claim_due(database, now=now, claim_for=MINUTE, longest_wait=15 * MINUTE, limit=9))


async def claim_delivery(database: Database, now: datetime) -> int:
    async with database.transaction() as connection:
        claimed = outbox.claim(connection, "crm", now=now, claim_for=MINUTE, longest_wait=60 * MINUTE, limit=9)
        return len(await claimed)


async def put_delivery(database: Database, now: datetime) -> None:
    async with database.transaction() as connection:
        await connection.execute(sa.insert(push_destinations).values(name="crm", position=1))
        values = {"destination": "crm", "position": 1, "account_id": "a", "state": "pending", "due_at": now}
        await connection.execute(sa.insert(push_deliveries).values(values))


@pytest.mark.parametrize(("skew", "holds"), SKEWS)
async def test_an_account_is_not_read_by_two_whose_clocks_differ(
    database: Database, skew: timedelta, *, holds: bool
) -> None:
    async with database.transaction() as connection:
        await due.mark_due(connection, "a", now=NOW)
    assert await claim_account(database, NOW + skew) == 1
    assert await claim_account(database, NOW) == (0 if holds else 1)


@pytest.mark.parametrize(("skew", "holds"), SKEWS)
async def test_a_change_is_not_pushed_by_two_whose_clocks_differ(
    database: Database, skew: timedelta, *, holds: bool
) -> None:
    await put_delivery(database, NOW)
    assert await claim_delivery(database, NOW + skew) == 1
    assert await claim_delivery(database, NOW) == (0 if holds else 1)


async def test_what_a_clock_put_two_days_ahead_is_due_now(database: Database) -> None:
    async with database.transaction() as connection:
        await due.mark_due(connection, "a", now=NOW + timedelta(days=2))
        c = linked_accounts.c
        assert (await connection.execute(sa.select(c.refresh_due_at))).scalar_one() == NOW + timedelta(days=2)
    await put_delivery(database, NOW + timedelta(days=2))
    assert await claim_account(database, NOW) == 1
    assert await claim_delivery(database, NOW) == 1
