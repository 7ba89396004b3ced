"""The rows of the ledger, and which account a session is held to have led to."""

from datetime import timedelta
from typing import Any

import pytest

from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import GRACE, find_linked_account
from app.connect_sessions.tables import Status, connect_sessions, owners
from tests.support.broker import Broker

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
HALF_HOUR = timedelta(minutes=30)


async def find(broker: Broker, session: Session) -> str | None:
    async with broker.runtime.database.reading() as connection:
        return await find_linked_account(connection, session)


async def test_the_first_name_of_an_owner_is_pinned_with_who_and_when(broker: Broker) -> None:
    first = broker.clock.now()
    for owner_id, name, actor in (("acme", "Acme", "user:ann"), ("acme", "ACME!", "user:eve"), ("globex", "G", "u")):
        async with broker.runtime.database.transaction() as connection:
            pinned = await ledger.pin_owner_name(connection, owner_id, name, actor=actor, now=broker.clock.now())
        assert pinned == ("Acme" if owner_id == "acme" else "G")
        broker.clock.advance(60)

    assert await broker.rows(owners) == [
        {"owner_id": "acme", "owner_name": "Acme", "pinned_at": first, "pinned_by": "user:ann"},
        {"owner_id": "globex", "owner_name": "G", "pinned_at": first + timedelta(minutes=2), "pinned_by": "u"},
    ]


async def test_minting_is_closed_for_the_one_session(broker: Broker) -> None:
    await broker.has_session("cs_1", status="minting")
    await broker.has_session("cs_2", status="minting")
    async with broker.runtime.database.transaction() as connection:
        await ledger.close_minting(connection, "cs_1", status=Status.PENDING, upstream_id="77")
    async with broker.runtime.database.transaction() as connection:
        await ledger.close_minting(connection, "cs_2", status=Status.FAILED)

    rows = {row["id"]: (row["status"], row["upstream_id"]) for row in await broker.rows(connect_sessions)}
    assert rows == {"cs_1": ("pending", "77"), "cs_2": ("failed", None)}


async def test_a_session_is_found_by_its_owner_only(broker: Broker) -> None:
    session = await broker.has_session("cs_1", upstream_id="4217001", multiple=True)
    await broker.has_session("cs_2", owner_id="globex", upstream_id="4217002")
    await broker.has_session("cs_3")
    async with broker.runtime.database.reading() as connection:
        assert await ledger.get_session(connection, "acme", "cs_1") == session
        assert await ledger.get_session(connection, "acme", "cs_2") is None
        assert await ledger.get_session(connection, "globex", "cs_1") is None
        assert await ledger.get_upstream_id(connection, "acme", "cs_1") == "4217001"
        assert await ledger.get_upstream_id(connection, "acme", "cs_2") is None
        assert await ledger.get_upstream_id(connection, "globex", "cs_1") is None
        assert await ledger.get_upstream_id(connection, "acme", "cs_3") is None


async def test_an_account_that_is_new_to_the_owner_ends_the_session(broker: Broker) -> None:
    session = await broker.has_session()
    assert await find(broker, session) is None
    await broker.has_account()
    assert await find(broker, session) is None
    await broker.has_event()
    assert await find(broker, session) == "a1"


NO_MATCH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "anothers-event": ({}, {"owner_id": "globex"}),
    "not-in-the-feed": ({}, {"position": None}),
    "only-updated": ({}, {"kind": "account.updated"}),
    "of-another-account": ({}, {"account_id": "a2"}),
    "anothers-account-now": ({"owner_id": "globex"}, {}),
    "deleted-since": ({"deleted_at": "now"}, {}),
    "another-provider": ({"provider": "workday"}, {}),
}


@pytest.mark.parametrize(("account", "event"), NO_MATCH.values(), ids=NO_MATCH.keys())
async def test_other_news_does_not(broker: Broker, account: dict[str, Any], event: dict[str, Any]) -> None:
    session = await broker.has_session()
    times: dict[str, Any] = {name: broker.clock.now() if value == "now" else value for name, value in account.items()}
    await broker.has_account(**times)
    await broker.has_event(**event)

    assert await find(broker, session) is None


@pytest.mark.parametrize(
    ("offset", "matches"),
    [
        (-SECOND, False),
        (timedelta(0), True),
        (HALF_HOUR + GRACE, True),
        (HALF_HOUR + GRACE + SECOND, False),
    ],
    ids=["before", "at-its-start", "at-the-end-of-the-grace", "after-the-grace"],
)
async def test_a_session_leads_to_what_was_linked_in_its_time_or_a_grace_later(
    broker: Broker, offset: timedelta, *, matches: bool
) -> None:
    session = await broker.has_session()
    await broker.has_account()
    await broker.has_event(at=broker.clock.now() + offset)

    assert (await find(broker, session) == "a1") == matches


def test_the_grace_is_ten_minutes() -> None:
    assert timedelta(minutes=10) == GRACE


async def test_of_several_accounts_the_first_in_the_feed_counts(broker: Broker) -> None:
    session = await broker.has_session(provider=None)
    for account_id, position in (("a1", 7), ("a2", 5), ("a3", 6)):
        await broker.has_account(account_id, provider="workday")
        await broker.has_event(account_id, position=position)

    assert await find(broker, session) == "a2"


async def test_a_session_without_a_provider_leads_to_any(broker: Broker) -> None:
    session = await broker.has_session(provider=None)
    await broker.has_account(provider="workday")
    await broker.has_event()

    assert await find(broker, session) == "a1"


async def test_sessions_for_further_accounts_never_share_one(broker: Broker) -> None:
    session = await broker.has_session("cs_1", multiple=True, linked_account_id="a2")
    await broker.has_session("cs_other", multiple=True, linked_account_id="a1")
    await broker.has_session("cs_foreign", owner_id="globex", linked_account_id="a3")
    for position, account_id in enumerate(("a1", "a2", "a3")):
        await broker.has_account(account_id)
        await broker.has_event(account_id, position=position)

    # a1 is another session's, a2 was its own all along, and what a stranger's row says does not count.
    assert await find(broker, session) == "a2"
    plain = await broker.has_session("cs_plain")
    assert await find(broker, plain) == "a1"
    third = await broker.has_session("cs_third", multiple=True)
    assert await find(broker, third) == "a3"


async def edit(broker: Broker, **account: Any) -> Session:
    """Open an edit session for an account that was last updated yesterday, unless changed."""
    session = await broker.has_session(mode="edit", account_id="a1")
    now = broker.clock.now()
    values: dict[str, Any] = {name: now if value == "now" else value for name, value in account.items()}
    await broker.has_account(**values)
    return session


async def test_an_edit_session_waits_for_an_update(broker: Broker) -> None:
    assert await find(broker, await edit(broker)) is None


@pytest.mark.parametrize(
    ("offset", "matches"),
    [(-SECOND, False), (timedelta(0), True), (HALF_HOUR + GRACE, True), (HALF_HOUR + GRACE + SECOND, False)],
    ids=["before", "at-its-start", "at-the-end-of-the-grace", "after-the-grace"],
)
@pytest.mark.parametrize("told_by", ["updated_at", "hint", "account.updated", "account.recovered"])
async def test_an_edit_session_is_linked_by_an_update_in_its_time(
    broker: Broker, told_by: str, offset: timedelta, *, matches: bool
) -> None:
    at = broker.clock.now() + offset
    session = await edit(broker, **({"updated_at": at} if told_by == "updated_at" else {}))
    if told_by != "updated_at":
        await broker.has_event(kind=told_by, at=at, position=None)

    assert (await find(broker, session) == "a1") == matches


@pytest.mark.parametrize(
    "account",
    [
        {"owner_id": "globex"},
        {"account_id": "a2"},
        {"deleted_at": "now"},
        {"verified_at": None},
        {"refresh_due_at": "now"},
    ],
    ids=str,
)
async def test_an_edited_account_must_be_the_owners_and_freshly_read(broker: Broker, account: dict[str, Any]) -> None:
    session = await edit(broker, updated_at="now", **account)

    assert await find(broker, session) is None


@pytest.mark.parametrize(
    "event", [{"kind": "account.needs_reauth"}, {"kind": "account.linked"}, {"account_id": "a2"}], ids=str
)
async def test_news_of_another_kind_or_account_says_nothing_about_an_edit(
    broker: Broker, event: dict[str, Any]
) -> None:
    session = await edit(broker)
    await broker.has_event(**{"kind": "hint", **event})

    assert await find(broker, session) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("pending", "linked"),
        ("minting", "linked"),
        ("linked", "linked"),
        ("expired", "expired"),
        ("failed", "failed"),
    ],
)
async def test_only_an_open_session_can_be_ended(broker: Broker, before: str, after: str) -> None:
    await broker.has_session("cs_1", status=before)
    await broker.has_session("cs_other")
    broker.clock.advance(60)
    async with broker.runtime.database.transaction() as connection:
        await ledger.record_end(connection, "cs_1", status=Status.LINKED, account_id="a1", now=broker.clock.now())

    ended, other = await broker.rows(connect_sessions)
    is_open = before in {"pending", "minting"}
    assert (ended["status"], ended["linked_account_id"], ended["resolved_at"]) == (
        after,
        "a1" if is_open else None,
        broker.clock.now() if is_open else None,
    )
    assert (other["status"], other["linked_account_id"], other["resolved_at"]) == ("pending", None, None)
