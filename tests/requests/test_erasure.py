"""Erasing an owner: nothing personal remains, here or at StackOne, and a receipt says so."""

from typing import Any

import pytest
import sqlalchemy as sa

from app.db.tables import metadata
from app.identity.caller import Scope
from app.jobs import keep_house
from app.linked_accounts.store import count_due_of_all_owners
from sandbox.identity.provider import USERS
from sandbox.stackone.accounts import LinkOrder
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def everything(world: World) -> str:
    """Return all that the database holds, as text."""
    async with world.runtime.database.reading() as connection:
        tables = [
            (await connection.execute(sa.select(table))).all()
            for table in metadata.sorted_tables
            if table.name != "service_keys"
        ]
    return repr(tables)


async def filled(world: World) -> list[str]:
    """Have an owner leave traces everywhere."""
    ids = [await world.link("alice", label=f"Secret label {n}") for n in range(3)]
    for account_id in ids[:2]:
        await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    changes = {"label": "Another label", "origin_username": "alice2@acme.example", "status": "error"}
    await world.switch("PATCH", f"/accounts/{ids[0]}", changes)
    await world.broker.post(f"/v1/linked-accounts/{ids[0]}/confirm", headers=world.as_user("alice"))
    await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"), json={})
    await world.broker.delete(f"/v1/linked-accounts/{ids[1]}", headers=world.as_user("alice"))
    invited = await world.broker.post(
        "/v1/owners/org_acme/invitations", headers=world.as_service(), json={"for": USERS["alice"].email}
    )
    code = {"code": invited.json()["url"].partition("#")[2]}
    opened = await world.broker.post("/v1/invitations/open", headers=world.as_user("alice"), json=code)
    assert opened.status_code == 201, opened.text
    return ids


async def erase(world: World, key: str | None = None) -> Any:
    return await world.broker.delete("/v1/owners/org_acme", headers=world.as_service(key))


async def test_nothing_personal_remains_and_others_keep_theirs(world: World) -> None:
    await filled(world)
    bobs = await world.link("bob")
    await world.broker.post(f"/v1/linked-accounts/{bobs}/confirm", headers=world.as_user("bob"))
    assert "Acme Inc" in await everything(world)
    answer = await erase(world)
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert (receipt["state"], receipt["accounts"], receipt["sessions"]) == ("complete", 3, 2)
    assert [account.origin_owner_id for account in world.project.accounts] == ["org_globex"]
    left = await everything(world)
    for trace in ("org_acme", "Acme", "alice", "Secret", "Another"):
        assert trace not in left, trace
    again = await world.broker.get(f"/v1/erasures/{receipt['id']}", headers=world.as_service())
    assert again.json() == receipt
    shown = await world.broker.get(f"/v1/linked-accounts/{bobs}", headers=world.as_user("bob"))
    assert shown.status_code == 200


async def test_an_event_that_comes_late_does_not_bring_the_owner_back(world: World) -> None:
    """StackOne tells of the erasure's own deletions, and somebody replays what was captured before."""
    await filled(world)
    assert (await erase(world)).json()["state"] == "complete"
    # One more account, of which the store never hears but by its events.
    order = LinkOrder(provider="bamboohr", origin_owner_id="org_acme", origin_owner_name="Acme Inc", multiple=True)
    world.project.accounts.delete(world.project.accounts.link(order).id)
    webhooks = world.project.webhooks
    assert await webhooks.settle(10)
    for delivery in webhooks.log.after(0, 100):
        # Signed anew: other bytes than before.
        delivery.raw = None
        assert (await webhooks.replay(delivery.n)).state == "delivered"

    async def nothing_due() -> bool:
        async with world.runtime.database.reading() as connection:
            return await count_due_of_all_owners(connection) == 0

    await eventually(nothing_due)
    left = await everything(world)
    for trace in ("org_acme", "Acme", "alice"):
        assert trace not in left, trace


@pytest.mark.parametrize("method", ["*", "DELETE"])
async def test_while_stackone_is_away_the_erasure_waits_and_is_then_carried_on(database_url: str, method: str) -> None:
    async with open_world(database_url, webhooks=False, sync={"enabled": False}) as world:
        await filled(world)
        await world.switch("POST", "/faults", {"method": method, "path": "/accounts", "times": None, "status": 500})
        answer = await erase(world)
        assert (answer.status_code, answer.json()["state"]) == (202, "pending")
        await world.switch("DELETE", "/faults")

        # Another process finds it and goes on.
        async def complete() -> bool:
            await keep_house(world.runtime)
            receipt = await world.broker.get(f"/v1/erasures/{answer.json()['id']}", headers=world.as_service())
            return bool(receipt.json()["state"] == "complete")

        await eventually(complete, within=15)
        assert "Acme" not in await everything(world)
        assert list(world.project.accounts) == []


async def test_only_those_who_may_erase(world: World) -> None:
    stranger = await world.create_key(Scope.OWNERS_WRITE, owners=("org_globex",))
    reader = await world.create_key(Scope.ACCOUNTS_WRITE)
    assert [(await erase(world, key)).status_code for key in (stranger, reader)] == [403, 403]
