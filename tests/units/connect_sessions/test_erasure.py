"""Erasing an owner, whatever StackOne's listing looks like and whatever gets in between."""

from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.connect_sessions.tables import connect_sessions, owners
from app.errors import AppError, NotFound
from app.linked_accounts.tables import account_events, linked_accounts
from app.owners.erasure import Erasure, carry_on, erase_owner, get_erasure, pending_erasures
from app.owners.tables import ErasureState, erasures
from app.stackone.budget import Priority
from sandbox.stackone.account_json import account_v1
from sandbox.stackone.listing import Listing
from tests.support.broker import Broker

pytestmark = pytest.mark.anyio

OPS = "service:ops"


async def erase(broker: Broker, owner_id: str = "acme") -> Erasure:
    return await erase_owner(broker.runtime, owner_id, actor=OPS)


def at_stackone(broker: Broker) -> list[str]:
    return [account.id for account in broker.project.accounts]


def owner_changes(broker: Broker) -> float:
    return broker.runtime.metrics.registry.get_sample_value("broker_account_owner_changes_total") or 0


async def test_an_erasure_leaves_a_receipt_and_nothing_else(broker: Broker) -> None:
    known = await broker.linked(name="Acme Inc.")
    unknown = broker.link("workday", name="Another name")
    foreign = await broker.linked(owner="globex")
    await broker.has_session("cs_1")
    await broker.has_session("cs_2", status="linked")
    await broker.has_session("cs_foreign", owner_id="globex")
    pin: dict[str, Any] = {"owner_name": "n", "pinned_at": broker.clock.now(), "pinned_by": "u"}
    await broker.has(owners, owner_id="acme", **pin)
    await broker.has(owners, owner_id="globex", **pin)
    with capture_logs() as logs:
        erasure = await erase(broker)

    events = await broker.rows(account_events)
    assert erasure == Erasure(
        id=erasure.id,
        owner_id=None,
        state=ErasureState.COMPLETE,
        requested_by=OPS,
        requested_at=broker.clock.now(),
        completed_at=broker.clock.now(),
        accounts=2,
        sessions=2,
        events=sum(event["account_id"] != foreign for event in events),
    )
    assert erasure.id.startswith("er_")
    assert at_stackone(broker) == [foreign]
    rows = {row["account_id"]: row["owner_id"] for row in await broker.rows(linked_accounts)}
    assert rows == {known: erasure.id, unknown: erasure.id, foreign: "globex"}
    assert [row["id"] for row in await broker.rows(connect_sessions)] == ["cs_foreign"]
    assert [row["owner_id"] for row in await broker.rows(owners)] == ["globex"]
    assert {"event": "owner_erased", "log_level": "info", "erasure_id": erasure.id} in logs
    assert await get_erasure(broker.runtime, erasure.id) == erasure


async def test_the_history_says_who_asked_and_when(broker: Broker) -> None:
    unknown = broker.link()
    broker.clock.advance(60)
    erasure = await erase(broker)

    events = [(row["kind"], row["source"], row["actor"], row["at"]) for row in await broker.rows(account_events)]
    assert events == [
        ("account.linked", "disconnect", "stackone", broker.clock.now()),
        ("account.disconnect_requested", "disconnect", OPS, broker.clock.now()),
        ("account.unlinked", "disconnect", OPS, broker.clock.now()),
    ]
    row = await broker.row(linked_accounts)
    assert (row["account_id"], row["owner_id"], row["deleted_at"]) == (unknown, erasure.id, broker.clock.now())


async def test_asking_again_while_it_is_under_way_is_the_same_erasure(broker: Broker) -> None:
    await broker.linked()
    broker.project.faults.add({"path": "/accounts", "status": 500, "times": 2})
    with capture_logs() as logs:
        first = await erase(broker)
        broker.clock.advance(60)
        again = await erase_owner(broker.runtime, "acme", actor="service:other")

    assert (first.state, first.owner_id, first.completed_at) == (ErasureState.PENDING, "acme", None)
    assert (first.accounts, first.sessions, first.events) == (0, 0, 0)
    assert again == first
    rescheduled = [entry for entry in logs if entry["event"] == "erasure_rescheduled"]
    assert [(entry["erasure_id"], entry["code"]) for entry in rescheduled] == [(first.id, "unavailable")] * 2
    done = await erase(broker)
    assert (done.id, done.state, done.requested_by) == (first.id, ErasureState.COMPLETE, OPS)
    assert done.completed_at == broker.clock.now()


async def test_an_owner_that_comes_back_can_be_erased_again(broker: Broker) -> None:
    first = await erase(broker)
    second = await erase(broker)

    assert first.id != second.id
    assert {row["state"] for row in await broker.rows(erasures)} == {"complete"}


async def test_a_complete_erasure_is_not_carried_on(broker: Broker) -> None:
    erasure = await erase(broker)
    before = len(broker.calls())

    assert await carry_on(broker.runtime, erasure) == erasure
    assert len(broker.calls()) == before


async def test_a_receipt_that_does_not_exist_is_not_found(broker: Broker) -> None:
    await erase(broker)
    with pytest.raises(NotFound):
        await get_erasure(broker.runtime, "er_unknown")


async def test_what_is_pending_is_listed_oldest_first(broker: Broker) -> None:
    await erase(broker, "done")
    broker.project.faults.add({"path": "/accounts", "status": 500, "times": None})
    for owner_id, seconds in (("later", 20), ("earlier", -10)):
        broker.clock.advance(seconds)
        await erase(broker, owner_id)
    async with broker.runtime.database.reading() as connection:
        pending = await pending_erasures(connection)

    assert [erasure.owner_id for erasure in pending] == ["earlier", "later"]


LISTINGS = {
    "as-documented": Listing(),
    "two-a-page": Listing(max_page_size=2),
    "from-zero": Listing(max_page_size=2, first_page=0),
    "every-page-the-first": Listing(ignore_page=True),
    "rows-repeated": Listing(max_page_size=2, repeat_rows=True),
    "in-an-envelope": Listing(envelope=True),
    "new-names": Listing(names="v2"),
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS.keys())
async def test_every_account_is_found_however_stackone_lists_them(broker: Broker, listing: Listing) -> None:
    ids = [broker.link(provider) for provider in ("bamboohr", "workday", "salesforce", "bamboohr", "workday")]
    foreign = broker.link(owner="globex")
    broker.project.listing = listing
    erasure = await erase(broker)

    assert (erasure.state, erasure.accounts, at_stackone(broker)) == (ErasureState.COMPLETE, len(ids), [foreign])


@pytest.mark.parametrize("ignore_page", [False, True])
async def test_large_pages_of_one_owner_are_asked_for_and_no_more_than_needed(
    broker: Broker, *, ignore_page: bool
) -> None:
    broker.link()
    broker.project.listing = Listing(ignore_page=ignore_page)
    await erase(broker)

    listings = [entry for entry in broker.project.requests.entries.after(0, 100) if entry.path == "/accounts"]
    # Lists may begin at 0 or at 1, and the last look finds nothing on either page.
    assert [entry.query for entry in listings] == [
        f"page={page}&page_size=100&origin_owner_id=acme" for page in (0, 1, 2, 0, 1)
    ]


async def test_more_accounts_than_fit_a_page_are_all_erased(broker: Broker) -> None:
    for _ in range(101):
        broker.link()
    erasure = await erase(broker)

    assert (erasure.state, erasure.accounts, at_stackone(broker)) == (ErasureState.COMPLETE, 101, [])


async def test_a_stackone_that_ignores_the_filter_costs_nobody_else_an_account(broker: Broker) -> None:
    broker.link()
    foreign = broker.link(owner="globex")
    everything = [account_v1(account) for account in broker.project.accounts]
    broker.project.faults.add({"method": "GET", "path": "/accounts", "times": 3, "body": everything})
    erasure = await erase(broker)

    assert (erasure.state, at_stackone(broker)) == (ErasureState.COMPLETE, [foreign])
    assert foreign not in {row["account_id"] for row in await broker.rows(linked_accounts)}


async def test_a_first_page_that_is_refused_is_passed_over_and_any_other_is_not(broker: Broker) -> None:
    broker.link()
    broker.project.faults.add({"method": "GET", "path": "/accounts", "status": 400, "times": 1})
    assert (await erase(broker)).state.value == "complete"
    broker.project.faults.add({"method": "GET", "path": "/accounts", "status": 400, "times": 2})
    with capture_logs() as logs:
        assert (await erase(broker)).state.value == "pending"
    assert [entry["code"] for entry in logs if entry["event"] == "erasure_rescheduled"] == ["upstream_rejected"]


async def test_what_was_linked_in_the_meantime_keeps_the_erasure_pending(broker: Broker) -> None:
    broker.link()

    async def link_another() -> None:
        if any(method == "DELETE" for method, _ in broker.calls()) and len(at_stackone(broker)) == 0:
            broker.link("workday")

    broker.wire.before = link_another
    assert (await erase(broker)).state.value == "pending"
    broker.wire.before = None
    assert (await erase(broker)).state.value == "complete"
    assert at_stackone(broker) == []


async def test_an_account_that_no_listing_shows_must_be_gone_as_well(broker: Broker) -> None:
    await broker.linked()
    broker.project.listing = Listing(end_early=0)
    broker.project.faults.add({"method": "DELETE", "path": "/accounts", "status": 500, "times": 1})
    assert (await erase(broker)).state.value == "pending"
    assert (await erase(broker)).state.value == "complete"
    assert at_stackone(broker) == []


async def test_an_account_that_moved_to_another_owner_stays_and_stops_nothing(broker: Broker) -> None:
    ids = sorted([await broker.linked(), await broker.linked("workday")])
    broker.project.accounts.change(ids[0], {"origin_owner_id": "globex"})
    erasure = await erase(broker)

    assert (erasure.state, at_stackone(broker)) == (ErasureState.COMPLETE, [ids[0]])
    rows = {row["account_id"]: row["owner_id"] for row in await broker.rows(linked_accounts)}
    assert rows == {ids[0]: "globex", ids[1]: erasure.id}
    assert owner_changes(broker) == 1


async def test_an_account_that_leaves_while_others_are_being_deleted_is_left_alone(broker: Broker) -> None:
    """It was on the list of what to delete, and is another owner's by the time its turn comes."""
    ids = sorted([await broker.linked(), await broker.linked("workday")])
    given_away = False

    async def give_away() -> None:
        nonlocal given_away
        if not given_away and ("GET", f"/accounts/{ids[0]}") in broker.calls()[2:]:
            given_away = True
            broker.project.accounts.change(ids[1], {"origin_owner_id": "globex"})
            await broker.read(ids[1])

    broker.wire.before = give_away
    erasure = await erase(broker)

    assert given_away
    assert (erasure.state, at_stackone(broker)) == (ErasureState.COMPLETE, [ids[1]])
    [row] = [row for row in await broker.rows(linked_accounts) if row["account_id"] == ids[1]]
    assert (row["owner_id"], row["disconnect_requested_at"]) == ("globex", None)


async def test_an_account_that_moved_to_the_owner_is_erased_too(broker: Broker) -> None:
    account_id = await broker.linked(owner="globex")
    broker.project.accounts.change(account_id, {"origin_owner_id": "acme"})
    erasure = await erase(broker)

    assert (erasure.state, erasure.accounts, at_stackone(broker)) == (ErasureState.COMPLETE, 1, [])
    assert owner_changes(broker) == 1


async def have_stackone_ask_for_patience(broker: Broker) -> None:
    """Have StackOne answer 429, whereupon everything but what somebody waits for is held back."""
    patience = {"method": "DELETE", "path": "/accounts/none", "status": 429, "headers": {"retry-after": "100"}}
    broker.project.faults.add(patience)
    with suppress(AppError):
        await broker.runtime.stackone.delete_account("none")


@pytest.mark.parametrize("calls", range(7))
async def test_in_the_background_an_erasure_yields_to_people_at_every_step(broker: Broker, calls: int) -> None:
    """Each call waits its turn: of those that this erasure takes, none is made once StackOne asked for patience.

    None but the deletion that has its place already: between the read of the owner and it nothing may be waited for.
    """
    await broker.linked()
    broker.project.faults.add({"path": "/accounts", "status": 500, "times": 1})
    pending = await erase(broker)
    before = len(broker.calls())
    made = 0

    async def count() -> None:
        nonlocal made
        made += 1
        if made == calls:
            broker.wire.before = None
            await have_stackone_ask_for_patience(broker)

    if calls == 0:
        await have_stackone_ask_for_patience(broker)
    broker.wire.before = count
    done = await carry_on(broker.runtime, pending, priority=Priority.REFRESH)

    assert done.state.value == "pending"
    called = [path for _, path in broker.calls()[before:] if path != "/accounts/none"]
    assert len(called) == (5 if calls == 4 else calls)


async def test_somebody_who_waits_is_served_in_spite_of_that(broker: Broker) -> None:
    await broker.linked()
    await have_stackone_ask_for_patience(broker)

    assert (await erase(broker)).state.value == "complete"
