"""Disconnect: the owner's request is kept until StackOne has carried it out; no other account is ever deleted."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from app.identity.caller import Scope
from app.linked_accounts.disconnect import request_disconnect
from app.linked_accounts.store import columns, from_row
from app.linked_accounts.tables import account_events, linked_accounts
from app.sync.sweep import run_sweep
from tests.support.waiting import eventually
from tests.support.wires import Gate
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

QUIET = {"enabled": False}


async def linked(world: World, user: str = "alice") -> str:
    """Link an account and have the broker confirm it."""
    account_id = await world.link(user)
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))
    assert answer.status_code == 200, answer.text
    return account_id


async def delete(world: World, account_id: str, user: str = "alice") -> Any:
    return await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user(user))


async def feed(world: World, account_id: str) -> list[tuple[str, str, str]]:
    events = account_events.c
    query = (
        sa.select(events.kind, events.source, events.actor)
        .where(events.account_id == account_id, events.position.is_not(None))
        .order_by(events.position)
    )
    async with world.runtime.database.reading() as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def test_an_owner_disconnects_and_may_repeat_it(world: World) -> None:
    account_id = await linked(world)
    assert [(await delete(world, account_id)).status_code for _ in range(3)] == [204, 204, 204]
    assert world.project.accounts.find(account_id) is None
    assert len(await world.received("DELETE", f"/accounts/{account_id}")) == 1
    shown = await world.broker.get(f"/v1/linked-accounts/{account_id}", headers=world.as_user("alice"))
    assert shown.status_code == 404
    kinds = await feed(world, account_id)
    assert [kind for kind, _, _ in kinds] == [
        "account.linked",
        "account.disconnect_requested",
        "account.unlinked",
    ]
    assert {(source, actor) for _, source, actor in kinds[1:]} == {("disconnect", f"user:alice@{world.issuer}")}


async def test_anothers_account_is_as_unknown_as_none(world: World) -> None:
    account_id = await linked(world)
    answers = [await delete(world, account_id, "bob"), await delete(world, "doesNotExist", "bob")]
    assert [answer.status_code for answer in answers] == [404, 404]
    first, second = (answer.json() | {"request_id": None} for answer in answers)
    assert first == second
    assert world.project.accounts.find(account_id) is not None
    assert await world.received("DELETE", f"/accounts/{account_id}") == []
    # A tombstone stays its owner's: nobody else learns that there ever was an account.
    await delete(world, account_id)
    assert (await delete(world, account_id, "bob")).status_code == 404


async def test_a_service_needs_the_scope_and_the_owner(world: World) -> None:
    account_id = await linked(world)
    path = f"/v1/accounts/{account_id}"
    reader = await world.create_key(Scope.ACCOUNTS_READ)
    stranger = await world.create_key(Scope.ACCOUNTS_WRITE, owners=("org_globex",))
    own = await world.create_key(Scope.ACCOUNTS_WRITE, owners=("org_acme",))
    statuses = [
        (await world.broker.delete(path, headers=world.as_service(key))).status_code for key in (reader, stranger)
    ]
    assert statuses == [403, 404]
    assert world.project.accounts.find(account_id) is not None
    assert (await world.broker.delete(path, headers=world.as_service(own))).status_code == 204
    assert world.project.accounts.find(account_id) is None


async def test_while_stackone_is_away_the_request_is_kept_and_later_carried_out(world: World) -> None:
    account_id = await linked(world)
    await world.switch("POST", "/faults", {"path": "/accounts", "times": None, "status": 503})
    answer = await delete(world, account_id)
    assert answer.status_code == 202
    assert (answer.json()["account_id"], answer.json()["disconnect_requested_at"] is not None) == (account_id, True)
    listed = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
    assert [(row["leaving"], row["usable"], row["status"]) for row in listed.json()["data"]] == [
        (True, False, "active")
    ]
    await world.switch("DELETE", "/faults")

    async def deleted() -> bool:
        return world.project.accounts.find(account_id) is None

    await eventually(deleted, within=20)

    async def settled() -> bool:
        return bool((await delete(world, account_id)).status_code == 204)

    await eventually(settled)
    assert [kind for kind, _, _ in await feed(world, account_id)].count("account.unlinked") == 1


async def test_the_request_survives_the_process(database_url: str) -> None:
    async with open_world(database_url, sync=QUIET, webhooks=False) as world:
        account_id = await linked(world)
        await world.switch("POST", "/faults", {"path": "/accounts", "times": None, "status": 500})
        assert (await delete(world, account_id)).status_code == 202
        saved = world.project.accounts.dump()
    async with open_world(database_url) as world:
        world.project.accounts.restore(saved)

        async def deleted() -> bool:
            return world.project.accounts.find(account_id) is None

        await eventually(deleted, within=20)


async def test_a_request_of_an_owner_who_lost_the_account_is_dropped(database_url: str) -> None:
    async with open_world(database_url, sync=QUIET, webhooks=False) as world:
        account_id = await linked(world)
        moved = {"origin_owner_id": "org_globex", "origin_owner_name": "Globex"}
        await world.switch("PATCH", f"/accounts/{account_id}", moved)
        assert (await delete(world, account_id)).status_code == 404
        assert world.project.accounts.find(account_id) is not None
        assert await world.received("DELETE", f"/accounts/{account_id}") == []
        # It is Bob's now, and free of Alice's request.
        shown = await world.broker.get(f"/v1/linked-accounts/{account_id}", headers=world.as_user("bob"))
        assert shown.status_code == 200
        assert world.runtime.metrics.registry.get_sample_value("broker_account_owner_changes_total") == 1


async def test_a_request_that_nobody_could_try_is_found_by_the_loop(world: World) -> None:
    """As after a crash between the commit of the request and the first call."""
    account_id = await linked(world)
    async with world.runtime.database.transaction() as connection:
        row = from_row((await connection.execute(sa.select(*columns()))).one())
        await request_disconnect(
            connection, row, actor="user:gone", now=world.clock.now(), claim_for=timedelta(seconds=0.3)
        )

    async def buried() -> bool:
        async with world.runtime.database.reading() as connection:
            query = sa.select(linked_accounts.c.deleted_at).where(linked_accounts.c.account_id == account_id)
            return (await connection.execute(query)).scalar_one() is not None

    await eventually(buried, within=5)
    assert world.project.accounts.find(account_id) is None
    assert (await feed(world, account_id))[-1] == ("account.unlinked", "disconnect", "user:gone")


async def test_nothing_is_told_of_an_account_that_changed_hands_on_the_way(database_url: str) -> None:
    gates: list[Gate] = []

    def gated(wire: httpx2.AsyncBaseTransport) -> Gate:
        gates.append(Gate(wire))
        return gates[0]

    async with open_world(database_url, webhooks=False, sync=QUIET, stackone_wire=gated) as world:
        [gate] = gates
        account_id = await linked(world)
        await world.switch("POST", "/faults", {"method": "DELETE", "path": "/accounts", "times": 20, "status": 500})
        gate.hold = "after"
        deleting = asyncio.create_task(delete(world, account_id))
        await gate.holding.wait()
        # The read of the owner is on its way back; what is held next is the answer to the DELETE.
        let_go, gate.hold = gate.let_go_later(), "after"
        let_go()
        await gate.holding.wait()
        bob = {"origin_owner_id": "org_globex", "origin_owner_name": "Globex Corp"}
        await world.switch("PATCH", f"/accounts/{account_id}", bob)
        await run_sweep(world.runtime, by="test")
        await world.switch("POST", "/faults", {"method": "GET", "path": "/accounts", "times": 20, "status": 500})
        gate.release()
        answer = await deleting
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "globex" not in answer.text.lower()
        assert world.project.accounts.find(account_id) is not None
