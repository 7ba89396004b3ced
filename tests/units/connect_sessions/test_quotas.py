"""How many sessions and accounts an owner may have at once, counted exactly."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.connect_sessions.ledger import Session, count_live_sessions
from app.connect_sessions.opening import Opening, write_down
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


async def try_to_open(
    broker: Broker,
    *,
    channel: Channel = Channel.BROWSER,
    multiple: bool = False,
    most_live: int = 100,
    most_accounts: int | None = None,
    rule: str = "r",
) -> None:
    """Write a session of acme's for BambooHR down, and take it away again. Raises what refuses it."""
    now = broker.clock.now()
    session = Session(
        id="cs_tried",
        owner_id="acme",
        requested_by="user:ann",
        channel=channel,
        mode=Mode.CREATE,
        status=Status.MINTING,
        provider="BambooHR",
        account_id=None,
        linked_account_id=None,
        created_at=now,
        expires_at=now + 30 * MINUTE,
        multiple=multiple,
    )
    before = [await broker.rows(table) for table in (owners, connect_sessions)]
    opening = Opening(session, "Acme", most_live=most_live, most_accounts=most_accounts, rule=rule, categories=["hris"])
    try:
        assert await write_down(broker.runtime.database, opening) in {"Acme", "Acme Inc."}
    except (TooManyRequests, Forbidden):
        assert [await broker.rows(table) for table in (owners, connect_sessions)] == before, "all or nothing"
        raise
    async with broker.runtime.database.transaction() as connection:
        await connection.execute(sa.delete(connect_sessions).where(connect_sessions.c.id == session.id))
        await connection.execute(sa.delete(owners))


async def live(broker: Broker, owner_id: str = "acme") -> int:
    async with broker.runtime.database.reading() as connection:
        return await count_live_sessions(connection, owner_id, broker.clock.now())


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"status": "minting"}, 1),
        ({"mode": "edit"}, 1),
        ({"status": "linked"}, 0),
        ({"status": "expired"}, 0),
        ({"status": "failed"}, 0),
        ({"owner_id": "globex"}, 0),
    ],
    ids=str,
)
async def test_a_session_that_may_still_link_counts(broker: Broker, changes: dict[str, Any], count: int) -> None:
    await broker.has_session(**changes)
    assert await live(broker) == count


async def test_a_session_counts_until_the_moment_it_ends(broker: Broker) -> None:
    await broker.has_session(expires_at=broker.clock.now() + MINUTE)
    broker.clock.advance(59)
    assert await live(broker) == 1
    broker.clock.advance(1)
    assert await live(broker) == 0


async def test_one_session_too_many_is_told_when_the_next_one_ends(broker: Broker) -> None:
    now = broker.clock.now()
    for minutes in (9, 4, 7):
        await broker.has_session(f"cs_{minutes}", expires_at=now + minutes * MINUTE)
    await broker.has_session("cs_ended", expires_at=now)
    await broker.has_session("cs_foreign", owner_id="globex", expires_at=now + MINUTE)

    await try_to_open(broker, most_live=4)
    for most in (3, 2):
        with pytest.raises(TooManyRequests) as refusal:
            await try_to_open(broker, most_live=most)
        assert refusal.value.retry_after == 240
        assert (
            refusal.value.detail
            == f"{most} sessions of this owner are open at once, which is the limit; end those that are not needed"
        )


async def test_auth_links_and_sessions_are_counted_apart(broker: Broker) -> None:
    await broker.has_session("cs_page")
    for number in range(3):
        await broker.has_session(f"cs_{number}", channel="auth_link")

    for channel in (Channel.BROWSER, Channel.SERVICE):
        await try_to_open(broker, channel=channel, most_live=2)
    await try_to_open(broker, channel=Channel.AUTH_LINK, most_live=4)
    with pytest.raises(TooManyRequests, match="3 auth links of this owner are open at once"):
        await try_to_open(broker, channel=Channel.AUTH_LINK, most_live=3)


async def allows(broker: Broker, most: int, *, multiple: bool) -> bool:
    try:
        await try_to_open(broker, multiple=multiple, most_accounts=most)
    except Forbidden:
        return False
    return True


async def fewest(broker: Broker, *, multiple: bool = True) -> int:
    """Return the smallest limit under which one more session is allowed."""
    return min([most for most in range(1, 9) if await allows(broker, most, multiple=multiple)])


@pytest.mark.parametrize(
    ("accounts", "further", "others", "for_a_further_one", "for_the_first"),
    [
        (0, 0, 0, 1, 1),
        (1, 0, 0, 2, 1),
        (2, 0, 0, 3, 1),
        (0, 1, 0, 2, 2),
        (0, 2, 0, 3, 3),
        (0, 0, 1, 2, 1),
        (0, 0, 3, 2, 1),
        (1, 1, 0, 3, 1),
        (1, 0, 1, 2, 1),
        (2, 1, 3, 4, 1),
        (0, 1, 1, 3, 1),
    ],
)
async def test_accounts_and_sessions_that_can_make_one_count(
    broker: Broker, accounts: int, further: int, others: int, for_a_further_one: int, for_the_first: int
) -> None:
    """Sessions that do not ask for a further account make one between them, and none where there is one."""
    for number in range(accounts):
        await broker.has_account(f"a{number}")
    for number in range(further):
        await broker.has_session(f"cs_further_{number}", multiple=True)
    for number in range(others):
        await broker.has_session(f"cs_other_{number}")

    assert await fewest(broker, multiple=True) == for_a_further_one
    assert await fewest(broker, multiple=False) == for_the_first


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"verified_at": None}, True),
        ({"status": "error"}, True),
        ({"owner_id": "globex"}, False),
        ({"provider": "workday"}, False),
        ({"deleted_at": "now"}, False),
        ({"disconnect_requested_at": "now"}, False),
    ],
    ids=str,
)
async def test_an_account_counts_until_it_is_given_up(broker: Broker, changes: dict[str, Any], *, counts: bool) -> None:
    times: dict[str, Any] = {name: broker.clock.now() if value == "now" else value for name, value in changes.items()}
    await broker.has_account(**times)

    assert await fewest(broker) == (2 if counts else 1)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"provider": None}, True),
        ({"status": "minting"}, True),
        ({"provider": "workday"}, False),
        ({"mode": "edit"}, False),
        ({"owner_id": "globex"}, False),
        ({"status": "failed"}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("multiple", [True, False])
async def test_only_a_session_that_may_make_an_account_of_the_provider_counts(
    broker: Broker, changes: dict[str, Any], *, counts: bool, multiple: bool
) -> None:
    await broker.has_session(multiple=multiple, **changes)

    assert await fewest(broker) == (2 if counts else 1)


FEED: dict[str, tuple[Sequence[dict[str, Any]], int]] = {
    # Two sessions for further accounts are open, and one account is there: three places are taken at most.
    "not-told-of": ([], 4),
    "linked-since": ([{}], 3),
    "told-of-twice": ([{}, {"position": 2}], 3),
    "linked-before": ([{"at": -1}], 4),
    "linked-at-that-moment": ([{"at": 0}], 3),
    "only-updated": ([{"kind": "account.updated"}], 4),
    "another-account": ([{"account_id": "a2"}], 4),
}


@pytest.mark.parametrize(("events", "expected"), FEED.values(), ids=FEED.keys())
async def test_an_account_that_a_session_made_takes_its_place(
    broker: Broker, events: Sequence[dict[str, Any]], expected: int
) -> None:
    """Nobody may have asked how the session stands, so it is still open in the ledger."""
    opened = broker.clock.now()
    await broker.has_session("cs_1", multiple=True)
    await broker.has_session("cs_2", multiple=True, created_at=opened + MINUTE)
    await broker.has_account()
    for event in events:
        await broker.has_event(**{**event, "at": opened + event.get("at", 1) * timedelta(seconds=1)})

    assert await fewest(broker) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 3),
        # Known to be the work of this session: the place it takes is its own.
        ({"linked_account_id": "a1", "status": "linked"}, 3),
        ({"linked_account_id": "a1", "status": "linked", "owner_id": "globex"}, 2),
        ({"linked_account_id": "a2", "status": "linked"}, 2),
    ],
    ids=str,
)
async def test_an_account_takes_the_place_of_one_session_only(
    broker: Broker, changes: dict[str, Any], expected: int
) -> None:
    await broker.has_session("cs_open", multiple=True)
    await broker.has_session("cs_maker", multiple=True, **changes)
    await broker.has_account()
    await broker.has_event()

    assert await fewest(broker) == expected


@pytest.mark.parametrize("changes", [{"provider": "workday"}, {"owner_id": "globex"}], ids=str)
async def test_an_account_of_another_kind_takes_no_sessions_place(broker: Broker, changes: dict[str, Any]) -> None:
    await broker.has_session(multiple=True)
    await broker.has_account(**changes)
    await broker.has_event()

    assert await fewest(broker) == 2


async def test_more_accounts_than_sessions_leave_no_credit(broker: Broker) -> None:
    await broker.has_session(multiple=True)
    for number in (1, 2, 3):
        await broker.has_account(f"a{number}")
        await broker.has_event(f"a{number}", position=number)

    assert await fewest(broker) == 4


async def test_a_refusal_says_which_rule_how_many_and_what_to_do(broker: Broker) -> None:
    await broker.has_account()
    with pytest.raises(Forbidden) as refusal:
        await try_to_open(broker, multiple=True, most_accounts=1, rule="gold")

    assert refusal.value.detail == (
        'rule "gold" allows 1 account(s) of a provider: there are 1, and open sessions that can make more;'
        " re-authenticate one with account_id, disconnect one, or let the open sessions end"
    )


def test_a_session_of_the_ledger_is_what_these_tests_put_there() -> None:
    assert set(connect_sessions.c.keys()) >= set(Session.__dataclass_fields__)
