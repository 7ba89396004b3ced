"""Pinning an owner's name on purpose, and what the broker says that this means."""

from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.connect_sessions.tables import owners
from app.linked_accounts.tables import linked_accounts
from app.owners.names import Pin, pin_owner
from tests.support.broker import Broker

pytestmark = pytest.mark.anyio

NEW_NAME = "New sessions tell StackOne the new name. StackOne keys accounts by owner id, name and provider."
KEEP = (
    "2 linked account(s) keep the name they were linked under; StackOne offers no rename. Where a session names the"
    " provider, the broker still opens the existing account instead of a second one."
)
SECOND_ACCOUNT = (
    "A session without a provider leaves that to StackOne, which looks under the new name: picking a provider that is"
    " linked already makes a second account. Name the provider, or give account_id."
)
OPEN_SESSIONS = (
    "1 session(s) that are open now still carry the old name until they end; an account linked through one is keyed"
    " by it."
)


async def pin(broker: Broker, name: str, *, owner_id: str = "acme", dry_run: bool = False) -> Pin:
    return await pin_owner(broker.runtime, owner_id, name, actor="service:ops", dry_run=dry_run)


async def test_an_unknown_owner_gets_its_first_name(broker: Broker) -> None:
    done = await pin(broker, "Acme")

    assert done == Pin("acme", "Acme", None, dry_run=False, accounts_with_other_names=[], live_sessions=0)
    assert (done.changes, list(done.effects())) == (True, [NEW_NAME])
    assert await broker.row(owners) == {
        "owner_id": "acme",
        "owner_name": "Acme",
        "pinned_at": broker.clock.now(),
        "pinned_by": "service:ops",
    }


async def test_another_name_takes_the_place_of_the_old_one(broker: Broker) -> None:
    old: dict[str, Any] = {"owner_name": "Old", "pinned_at": broker.clock.now(), "pinned_by": "user:ann"}
    await broker.has(owners, owner_id="acme", **old)
    await broker.has(owners, owner_id="globex", **old)
    broker.clock.advance(60)
    with capture_logs() as logs:
        done = await pin(broker, "New")

    assert (done.previous_name, done.name, done.changes) == ("Old", "New", True)
    acme, globex = await broker.rows(owners)
    assert acme == {
        "owner_id": "acme",
        "owner_name": "New",
        "pinned_at": broker.clock.now(),
        "pinned_by": "service:ops",
    }
    assert globex == {"owner_id": "globex", **old}
    # The name itself is the owner's own business; that it was changed, and by whom, is the operator's.
    assert logs == [{"event": "owner_name_pinned", "log_level": "warning", "owner_id": "acme", "actor": "service:ops"}]


@pytest.mark.parametrize(("name", "dry_run"), [("New", True), ("Old", False), ("Old", True)])
async def test_a_dry_run_and_the_same_name_write_nothing(broker: Broker, name: str, *, dry_run: bool) -> None:
    pinned = {"owner_id": "acme", "owner_name": "Old", "pinned_at": broker.clock.now(), "pinned_by": "user:ann"}
    await broker.has(owners, **pinned)
    broker.clock.advance(60)
    with capture_logs() as logs:
        done = await pin(broker, name, dry_run=dry_run)

    assert (done.changes, done.dry_run) == (name == "New", dry_run)
    assert list(done.effects()) == (
        [NEW_NAME] if name == "New" else ["The owner has this name already; nothing changes."]
    )
    assert await broker.row(owners) == pinned
    assert logs == []


async def test_every_effect_on_what_is_there_is_told(broker: Broker) -> None:
    await broker.has_account("a1", owner_name="Old")
    await broker.has_account("a2", owner_name=None)
    await broker.has_account("a3", owner_name="New")
    await broker.has_account("a4", owner_id="globex", owner_name="Old")
    await broker.has_session("cs_live")
    await broker.has_session("cs_ended", expires_at=broker.clock.now() - timedelta(seconds=1))
    await broker.has_session("cs_of_another", owner_id="globex")
    done = await pin(broker, "New", dry_run=True)

    assert [account.account_id for account in done.accounts_with_other_names] == ["a1", "a2"]
    assert done.live_sessions == 1
    assert list(done.effects()) == [NEW_NAME, KEEP, SECOND_ACCOUNT, OPEN_SESSIONS]
    assert list(Pin("o", "n", None, dry_run=True, accounts_with_other_names=[], live_sessions=1).effects()) == [
        NEW_NAME,
        OPEN_SESSIONS,
    ]


async def test_up_to_two_hundred_accounts_are_shown(broker: Broker) -> None:
    await broker.has_account("a000", owner_name="Old")
    row = await broker.row(linked_accounts)
    async with broker.runtime.database.transaction() as connection:
        rows = [{**row, "account_id": f"a{number:03}"} for number in range(1, 201)]
        await connection.execute(linked_accounts.insert(), rows)

    assert len((await pin(broker, "New", dry_run=True)).accounts_with_other_names) == 200
