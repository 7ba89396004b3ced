"""How a session is written down: by a function of PostgreSQL, and by steps on SQLite, to the same rows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.connect_sessions.ledger import Session
from app.connect_sessions.opening import Closing, Opening, close_minting, write_down
from app.connect_sessions.tables import Mode, Status, connect_sessions, owners
from app.errors import Forbidden, TooManyRequests
from app.policy.rules import Channel
from tests.support.broker import Broker, open_broker

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def broker(tmp_path: Path, database_url: str) -> AsyncIterator[Broker]:
    """Open a broker without a policy."""
    async with open_broker(tmp_path, database={"url": database_url}) as opened:
        yield opened


def a_session(broker: Broker, session_id: str = "cs_1", **changes: Any) -> Session:
    now = broker.clock.now()
    session = Session(
        id=session_id,
        owner_id="acme",
        requested_by="user:ann",
        channel=Channel.BROWSER,
        mode=Mode.CREATE,
        status=Status.MINTING,
        provider="bamboohr",
        account_id=None,
        linked_account_id=None,
        created_at=now,
        expires_at=now + 30 * MINUTE,
        multiple=False,
    )
    return replace(session, **changes)


async def test_every_column_is_written(broker: Broker) -> None:
    now = broker.clock.now()
    full = a_session(
        broker, mode=Mode.EDIT, channel=Channel.AUTH_LINK, account_id="a1", multiple=True, provider="Ü'\"\\"
    )
    opening = Opening(full, "Ü'\"\\", most_live=1, rule="gold", categories=["hris", "ats"])
    assert await write_down(broker.runtime.database, opening) == "Ü'\"\\"
    plain = a_session(broker, "cs_2", provider=None)
    assert await write_down(broker.runtime.database, Opening(plain, "Other", most_live=1)) == "Ü'\"\\"
    empty = dict.fromkeys(
        ("upstream_id", "linked_account_id", "ended_as", "was_new", "oauth_error_code", "oauth_error_description")
    )
    common = {"owner_id": "acme", "requested_by": "user:ann", "status": "minting", "resolved_at": None, **empty}
    times = {"created_at": now, "expires_at": now + 30 * MINUTE}
    rows = {row["id"]: row for row in await broker.rows(connect_sessions)}
    assert rows == {
        "cs_1": {
            "id": "cs_1",
            "channel": "auth_link",
            "mode": "edit",
            "provider": "Ü'\"\\",
            "categories": ["hris", "ats"],
            "account_id": "a1",
            "multiple": True,
            "policy_rule": "gold",
            **common,
            **times,
        },
        "cs_2": {
            "id": "cs_2",
            "channel": "browser",
            "mode": "create",
            "provider": None,
            "categories": None,
            "account_id": None,
            "multiple": False,
            "policy_rule": None,
            **common,
            **times,
        },
    }
    [owner] = await broker.rows(owners)
    assert owner == {"owner_id": "acme", "owner_name": "Ü'\"\\", "pinned_at": now, "pinned_by": "user:ann"}


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ({}, "New"),
        ({"deleted_at": "now"}, "Old"),
        ({"verified_at": None}, "Old"),
        ({"owner_id": "globex"}, "Old"),
        ({"owner_name": ""}, "Old"),
        ({"owner_name": None}, "Old"),
    ],
    ids=str,
)
async def test_the_first_pin_follows_the_account_that_was_updated_last(
    broker: Broker, others: dict[str, Any], name: str
) -> None:
    now = broker.clock.now()
    changes = {key: now if value == "now" else value for key, value in others.items()}
    await broker.has_account("a1", owner_name="Old", updated_at=now - MINUTE)
    await broker.has_account("a2", **{"owner_name": "New", "updated_at": now, **changes})
    opening = Opening(a_session(broker), "Sent", most_live=1)
    assert await write_down(broker.runtime.database, opening) == name


@pytest.mark.parametrize("known", [True, False])
async def test_of_many_at_once_as_many_are_written_as_may_be_open(broker: Broker, *, known: bool) -> None:
    if known:
        await broker.has(owners, owner_id="acme", owner_name="Acme", pinned_at=broker.clock.now(), pinned_by="user:ann")
    openings = [Opening(a_session(broker, f"cs_{number}"), "Acme", most_live=5) for number in range(20)]
    results = await asyncio.gather(
        *(write_down(broker.runtime.database, opening) for opening in openings), return_exceptions=True
    )
    assert [type(result) for result in results].count(TooManyRequests) == 15
    assert results.count("Acme") == 5
    assert len(await broker.rows(connect_sessions)) == 5


async def test_of_many_at_once_as_many_are_written_as_may_make_an_account(broker: Broker) -> None:
    openings = [
        Opening(a_session(broker, f"cs_{number}", multiple=True), "Acme", most_live=50, most_accounts=3, rule="r")
        for number in range(20)
    ]
    results = await asyncio.gather(
        *(write_down(broker.runtime.database, opening) for opening in openings), return_exceptions=True
    )
    assert [type(result) for result in results].count(Forbidden) == 17
    assert len(await broker.rows(connect_sessions)) == 3


async def test_minting_is_closed_for_the_one_session(broker: Broker) -> None:
    for number in (1, 2, 3):
        await broker.has_session(f"cs_{number}", status="minting")
    closings = [Closing("cs_1", Status.PENDING, "77"), Closing("cs_2", Status.FAILED)]
    assert await close_minting(broker.runtime.database, closings) == [None, None]

    rows = {row["id"]: (row["status"], row["upstream_id"]) for row in await broker.rows(connect_sessions)}
    assert rows == {"cs_1": ("pending", "77"), "cs_2": ("failed", None), "cs_3": ("minting", None)}
