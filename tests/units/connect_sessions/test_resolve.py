"""Resolving: what a session shows, what is written down about it, and when it is forgotten."""

from datetime import timedelta

import pytest

from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import GRACE, forget_sessions, resolve, resolve_ended_sessions, resolve_open_sessions
from app.connect_sessions.tables import connect_sessions
from tests.support.broker import Broker

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


async def shown(broker: Broker, session: Session) -> tuple[str, str | None]:
    async with broker.runtime.database.transaction() as connection:
        resolved = await resolve(connection, session, broker.clock.now())
    return resolved.status.value, resolved.linked_account_id


async def written(broker: Broker) -> dict[str, tuple[str, str | None, bool]]:
    rows = await broker.rows(connect_sessions)
    return {row["id"]: (row["status"], row["linked_account_id"], row["resolved_at"] is not None) for row in rows}


@pytest.mark.parametrize("status", ["linked", "expired", "failed"])
async def test_what_has_ended_stays_as_it_is(broker: Broker, status: str) -> None:
    session = await broker.has_session(status=status, linked_account_id="a9")
    await broker.has_account()
    await broker.has_event()

    assert await shown(broker, session) == (status, "a9")


@pytest.mark.parametrize("status", ["pending", "minting"])
async def test_an_open_session_is_pending_until_its_last_moment(broker: Broker, status: str) -> None:
    session = await broker.has_session(status=status)
    broker.clock.advance(1799)
    assert await shown(broker, session) == ("pending", None)
    broker.clock.advance(1)
    assert await shown(broker, session) == ("expired", None)
    assert await written(broker) == {"cs_1": (status, None, False)}


async def test_its_end_is_written_down_once_the_grace_is_over(broker: Broker) -> None:
    session = await broker.has_session()
    broker.clock.advance(1800 + GRACE.total_seconds() - 1)
    assert await shown(broker, session) == ("expired", None)
    assert await written(broker) == {"cs_1": ("pending", None, False)}
    broker.clock.advance(1)
    assert await shown(broker, session) == ("expired", None)
    assert await written(broker) == {"cs_1": ("expired", None, True)}
    assert (await broker.row(connect_sessions))["resolved_at"] == broker.clock.now()


async def test_a_link_that_becomes_known_within_the_grace_counts(broker: Broker) -> None:
    session = await broker.has_session()
    broker.clock.advance(1900)
    await broker.has_account()
    await broker.has_event()

    assert await shown(broker, session) == ("linked", "a1")
    assert await written(broker) == {"cs_1": ("linked", "a1", True)}
    assert (await broker.row(connect_sessions))["resolved_at"] == broker.clock.now()


async def test_news_resolves_the_open_sessions_of_its_owners_oldest_first(broker: Broker) -> None:
    now = broker.clock.now()
    # It ended before the account was linked, so the younger one alone fits.
    await broker.has_session("cs_young")
    await broker.has_session("cs_old", created_at=now - 99 * MINUTE, expires_at=now - 11 * MINUTE)
    await broker.has_session("cs_minting", status="minting", provider="workday")
    await broker.has_session("cs_failed", status="failed")
    await broker.has_session("cs_of_another", owner_id="globex")
    await broker.has_account()
    await broker.has_event()
    async with broker.runtime.database.transaction() as connection:
        assert await resolve_open_sessions(connection, [], after=None, now=now, limit=2) is None
        last = await resolve_open_sessions(connection, ["acme"], after=None, now=now, limit=2)
        assert last is not None
        assert await resolve_open_sessions(connection, ["acme"], after=last, now=now, limit=2) is None

    assert await written(broker) == {
        "cs_young": ("linked", "a1", True),
        "cs_old": ("expired", None, True),
        "cs_minting": ("minting", None, False),
        "cs_failed": ("failed", None, False),
        "cs_of_another": ("pending", None, False),
    }


async def test_sessions_past_their_grace_are_resolved_in_the_order_of_their_ends(broker: Broker) -> None:
    now = broker.clock.now()
    for minutes in (12, 10, 11, 9):
        await broker.has_session(f"cs_{minutes}", expires_at=now - minutes * MINUTE)
    await broker.has_session("cs_linked", status="linked", expires_at=now - 60 * MINUTE)
    async with broker.runtime.database.transaction() as connection:
        assert await resolve_ended_sessions(connection, now=now, limit=2) == 2
    assert {name for name, (status, *_) in (await written(broker)).items() if status == "expired"} == {"cs_12", "cs_11"}
    async with broker.runtime.database.transaction() as connection:
        assert await resolve_ended_sessions(connection, now=now, limit=2) == 1
        assert await resolve_ended_sessions(connection, now=now, limit=2) == 0
    assert (await written(broker))["cs_10"] == ("expired", None, True)
    assert (await written(broker))["cs_9"] == ("pending", None, False)


async def test_sessions_are_forgotten_after_their_retention_oldest_first(broker: Broker) -> None:
    now = broker.clock.now()
    for days in (31, 30, 32):
        await broker.has_session(f"cs_{days}", status="expired", expires_at=now - timedelta(days=days))
    await broker.has_session("cs_29", status="linked", expires_at=now - timedelta(days=30) + MINUTE)
    for status in ("pending", "minting"):
        await broker.has_session(f"cs_{status}", status=status, expires_at=now - timedelta(days=99))

    async def forget(limit: int) -> int:
        async with broker.runtime.database.transaction() as connection:
            return await forget_sessions(connection, now=now, retention=timedelta(days=30), limit=limit)

    assert await forget(2) == 2
    assert set(await written(broker)) == {"cs_30", "cs_29", "cs_pending", "cs_minting"}
    assert [await forget(2), await forget(2)] == [1, 0]
    # What was never resolved must not vanish unseen.
    assert set(await written(broker)) == {"cs_29", "cs_pending", "cs_minting"}
