"""The rows of the ledger, and which account a session is held to have led to."""

from datetime import timedelta
from typing import Any

import pytest

from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import GRACE, resolve
from app.connect_sessions.tables import Status, connect_sessions, owners
from tests.support.broker import Broker

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
HALF_HOUR = timedelta(minutes=30)


async def find(broker: Broker, session: Session) -> str | None:
    async with broker.runtime.database.transaction() as connection:
        return (await resolve(connection, session, broker.clock.now())).linked_account_id


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
    "updated-by-nobody": ({"status": "error"}, {"kind": "account.updated"}),
    "updated-and-not-read": ({"refresh_due_at": "now"}, {"kind": "account.updated"}),
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


async def test_a_picked_account_that_was_there_is_edited(broker: Broker) -> None:
    """StackOne edits it although nobody asked for that, and sends account.updated only."""
    session = await broker.has_session(provider=None)
    await broker.has_account("a1", provider="workday", updated_at=broker.clock.now())
    async with broker.runtime.database.transaction() as connection:
        resolved = await resolve(connection, session, broker.clock.now())

    assert (resolved.status, resolved.linked_account_id, resolved.was_new) == (Status.LINKED, "a1", False)
    assert (await broker.row(connect_sessions))["was_new"] is False


async def test_a_session_for_a_further_account_edits_none(broker: Broker) -> None:
    session = await broker.has_session(provider=None, multiple=True)
    await broker.has_account("a1", updated_at=broker.clock.now())

    assert await find(broker, session) is None


RIVALS: dict[str, tuple[dict[str, Any], bool]] = {
    "of the same kind": ({}, False),
    "of another user": ({"requested_by": "user:bea"}, False),
    "for any provider": ({"provider": None}, False),
    "that was open and has expired": ({"status": "expired"}, False),
    "of another provider": ({"provider": "workday"}, True),
    "for another account": ({"mode": "edit", "account_id": "a2"}, True),
    "that was refused": ({"status": "failed"}, True),
    "that was ended": ({"status": "expired", "ended_as": "ended"}, True),
    "of another owner": ({"owner_id": "globex"}, True),
    "that led to another account": ({"status": "linked", "linked_account_id": "a2"}, True),
    "that led to this one": ({"status": "linked", "linked_account_id": "a1"}, False),
}


@pytest.mark.parametrize(("rival", "is_credited"), RIVALS.values(), ids=RIVALS.keys())
@pytest.mark.parametrize("multiple", [False, True])
async def test_what_fits_two_sessions_is_credited_to_none(
    broker: Broker, rival: dict[str, Any], *, is_credited: bool, multiple: bool
) -> None:
    session = await broker.has_session(multiple=multiple)
    ended_as = rival.get("ended_as")
    await broker.has_session("cs_rival", multiple=multiple, **{k: v for k, v in rival.items() if k != "ended_as"})
    if ended_as is not None:
        await broker.change(connect_sessions, {"id": "cs_rival"}, ended_as=Status(ended_as))
    await broker.has_account()
    await broker.has_event()

    assert (await find(broker, session) == "a1") == is_credited


@pytest.mark.parametrize(
    ("by", "after", "same_user", "named"),
    [
        ("user:ann", 60, False, True),
        ("user:bea", 60, False, False),
        ("user:ann", -1, False, False),
        ("user:ann", 3000, False, False),
        ("user:ann", 60, True, False),
    ],
)
async def test_the_user_who_confirms_an_account_says_whose_session_it_was(
    broker: Broker, by: str, after: int, *, same_user: bool, named: bool
) -> None:
    session = await broker.has_session()
    await broker.has_session("cs_rival", requested_by="user:ann" if same_user else "user:bea")
    confirmed_at = broker.clock.now() + timedelta(seconds=after)
    await broker.has_account(confirmed_by=by, confirmed_at=confirmed_at)
    await broker.has_event()

    assert (await find(broker, session) == "a1") == named


async def test_what_nobody_named_ends_as_unknown(broker: Broker) -> None:
    sessions = [await broker.has_session(name) for name in ("cs_1", "cs_2")]
    await broker.has_account()
    await broker.has_event()
    for seconds, status in ((1799, Status.PENDING), (1, Status.UNKNOWN), (600, Status.UNKNOWN)):
        broker.clock.advance(seconds)
        for session in sessions:
            async with broker.runtime.database.transaction() as connection:
                assert (await resolve(connection, session, broker.clock.now())).status is status

    # A release that does not know the word reads the first column.
    rows = await broker.rows(connect_sessions)
    assert [(row["status"], row["ended_as"]) for row in rows] == [("expired", "unknown")] * 2
    async with broker.runtime.database.reading() as connection:
        shown = await ledger.get_session(connection, "acme", "cs_1")
    assert shown is not None
    assert shown.status is Status.UNKNOWN


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


OPEN = {"pending", "minting"}


@pytest.mark.parametrize("before", ["pending", "minting", "linked", "expired", "failed"])
@pytest.mark.parametrize("how", ["linked", "expired", "ended"])
async def test_only_an_open_session_can_be_ended(broker: Broker, before: str, how: str) -> None:
    await broker.has_session("cs_1", status=before)
    await broker.has_session("cs_other")
    broker.clock.advance(60)
    now = broker.clock.now()
    async with broker.runtime.database.transaction() as connection:
        if how == "linked":
            await ledger.record_link(connection, "cs_1", "a1", was_new=True, now=now)
        else:
            await ledger.record_end(connection, "cs_1", Status(how), now)

    ended, other = await broker.rows(connect_sessions)
    shown = (ended["status"], ended["ended_as"], ended["linked_account_id"], ended["was_new"], ended["resolved_at"])
    after = {
        "linked": ("linked", None, "a1", True, now),
        "expired": ("expired", None, None, None, now),
        "ended": ("expired", "ended", None, None, now),
    }
    assert shown == (after[how] if before in OPEN else (before, None, None, None, None))
    assert (other["status"], other["linked_account_id"], other["resolved_at"]) == ("pending", None, None)


@pytest.mark.parametrize("before", ["pending", "linked", "expired", "failed"])
async def test_what_stackone_names_corrects_what_was_found(broker: Broker, before: str) -> None:
    await broker.has_session("cs_1", status=before, linked_account_id="a9")
    async with broker.runtime.database.transaction() as connection:
        await ledger.record_link(connection, "cs_1", "a1", was_new=False, now=broker.clock.now(), named=True)

    row = await broker.row(connect_sessions)
    assert (row["status"], row["linked_account_id"], row["was_new"]) == ("linked", "a1", False)
