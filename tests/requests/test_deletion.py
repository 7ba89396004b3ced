"""Deletion is not decided by one answer: what removes an account, what does not, and what brings it back."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.leases import acquire, held, release
from app.jobs import keep_house
from app.linked_accounts.tables import account_events, linked_accounts
from app.sync.refresh import refresh_due
from app.sync.sweep import run_sweep
from tests.support.tokens import StoppedClock
from tests.support.waiting import eventually
from tests.support.wires import Gate
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

SOON: dict[str, Any] = {"deletion_confirm_seconds": 0.3, "poll_seconds": 0.05, "max_backoff_seconds": 1}
OWN_404: dict[str, Any] = {"method": "GET", "path": "/accounts/", "times": None, "status": 404}


async def linked(world: World, user: str = "alice", **fields: Any) -> str:
    account_id = await world.link(user, **fields)
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))
    assert answer.status_code == 200, answer.text
    return account_id


async def shown(world: World, user: str = "alice") -> dict[str, Any]:
    answer = await world.broker.get("/v1/linked-accounts?limit=200", headers=world.as_user(user))
    return {row["account_id"]: row for row in answer.json()["data"]}


async def reads(world: World, account_id: str) -> int:
    return len(await world.received("GET", f"/accounts/{account_id}"))


async def feed(world: World, owner_id: str = "org_acme") -> list[dict[str, Any]]:
    query = sa.select(account_events).where(
        account_events.c.owner_id == owner_id, account_events.c.position.is_not(None)
    )
    async with world.runtime.database.reading() as connection:
        rows = await connection.execute(query.order_by(account_events.c.position))
        return [dict(row) for row in rows.mappings()]


def metric(world: World, name: str) -> float:
    return world.runtime.metrics.registry.get_sample_value(name) or 0


@pytest.mark.parametrize("shape", ["gateway", "html"])
async def test_a_404_that_is_not_stackones_never_removes_anything(database_url: str, shape: str) -> None:
    async with open_world(database_url, sync=SOON, stackone={"max_attempts": 1}) as world:
        account_id = await linked(world)
        await world.switch("POST", "/faults", {**OWN_404, "shape": shape})
        before = await reads(world, account_id)
        await world.switch("PATCH", f"/accounts/{account_id}", {"label": "edited"})

        async def read_for_long() -> bool:
            return await reads(world, account_id) >= before + 4

        await eventually(read_for_long)
        assert account_id in await shown(world)


async def test_what_two_reads_bury_a_later_one_revives(database_url: str) -> None:
    async with open_world(database_url, sync=SOON) as world:
        account_id = await linked(world)
        await world.switch("POST", "/faults", OWN_404)
        await world.switch("PATCH", f"/accounts/{account_id}", {"label": "edited"})

        async def buried() -> bool:
            return account_id not in await shown(world)

        await eventually(buried)
        assert [event["kind"] for event in await feed(world)] == ["account.linked", "account.unlinked"]
        await world.switch("DELETE", "/faults")
        swept = await run_sweep(world.runtime, by="test")
        assert swept is not None
        assert swept.drift == 1
        assert account_id in await shown(world)
        last = (await feed(world))[-1]
        assert (last["kind"], last["changes"]["revived"]) == ("account.linked", True)
        assert metric(world, "broker_accounts_revived_total") == 1


async def test_one_answer_removes_nothing_until_a_signed_event_agrees(world: World) -> None:
    account_id = await linked(world)
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    await world.switch("DELETE", f"/accounts/{account_id}")
    confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user())
    assert confirmed.status_code == 404
    assert (await shown(world))[account_id]["usable"] is True
    # StackOne sends its event after all.
    await world.switch("POST", "/webhooks", {"mode": "deliver"})
    deleted = max(delivery.n for delivery in world.project.webhooks.log.after(0, 100))
    await world.project.webhooks.replay(deleted)

    async def buried() -> bool:
        return account_id not in await shown(world)

    await eventually(buried)


async def test_where_unusually_many_are_missing_none_is_removed(database_url: str) -> None:
    # The first must not be asked a second time before the others have been asked once, however busy the machine is.
    clock = StoppedClock(datetime.now(UTC))
    async with open_world(database_url, clock=clock, sync={**SOON, "deletion_confirm_seconds": 60}) as world:
        ids = {await linked(world) for _ in range(8)}
        await world.switch("POST", "/faults", OWN_404)
        for account_id in ids:
            await world.switch("PATCH", f"/accounts/{account_id}", {"label": "edited"})

        async def missing() -> int:
            async with world.runtime.database.reading() as connection:
                query = sa.select(sa.func.count()).where(linked_accounts.c.gone_since.is_not(None))
                return int((await connection.execute(query)).scalar_one())

        async def all_are_missing() -> bool:
            return await missing() == 8

        async def paused() -> bool:
            return metric(world, "broker_account_removals_paused_total") >= 8

        await eventually(all_are_missing)
        clock.advance(61)
        await eventually(paused)
        assert set(await shown(world)) == ids
        await world.switch("DELETE", "/faults")

        async def over() -> bool:
            clock.advance(1)
            return await missing() == 0

        await eventually(over)
        assert set(await shown(world)) == ids


async def test_a_deletion_that_is_not_carried_out_is_not_believed(database_url: str) -> None:
    async with open_world(database_url, sync=SOON) as world:
        account_id = await linked(world)
        await world.switch("POST", "/lies", {"keep_deleted": True})
        path = f"/v1/linked-accounts/{account_id}"
        answer = await world.broker.delete(path, headers=world.as_user())
        assert answer.status_code == 202
        row = (await shown(world))[account_id]
        assert (row["leaving"], row["usable"]) == (True, False)
        for body in ({"account_id": account_id}, {"provider": "bamboohr"}):
            refused = await world.mint("alice", body)
            assert (refused.status_code, refused.json()["code"]) == (409, "being_disconnected")
            assert int(refused.headers["retry-after"]) > 0
        assert (await world.mint("alice", {"provider": "salesforce"})).status_code == 201
        await world.switch("POST", "/lies", {})

        async def gone() -> bool:
            return (await world.broker.delete(path, headers=world.as_user())).status_code == 204

        await eventually(gone)
        assert world.project.accounts.find(account_id) is None
        assert (await world.mint("alice", {"provider": "bamboohr"})).json()["mode"] == "create"


async def test_the_owner_is_read_again_before_every_try(database_url: str) -> None:
    async with open_world(database_url, sync={**SOON, "enabled": False}, webhooks=False) as world:
        account_id = await linked(world)
        await world.switch("POST", "/faults", {"method": "DELETE", "path": "/accounts/", "times": 1, "status": 503})
        answer = await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user())
        assert answer.status_code == 202
        assert len(await world.received("DELETE", f"/accounts/{account_id}")) == 1
        moved = {"origin_owner_id": "org_globex", "origin_owner_name": "Globex"}
        await world.switch("PATCH", f"/accounts/{account_id}", moved)

        async def bobs() -> bool:
            await refresh_due(world.runtime)
            return account_id in await shown(world, "bob")

        await eventually(bobs)
        assert len(await world.received("DELETE", f"/accounts/{account_id}")) == 1
        assert world.project.accounts.find(account_id) is not None


async def test_neither_side_of_a_move_learns_of_the_other(database_url: str) -> None:
    async with open_world(database_url, sync={"enabled": False}, webhooks=False) as world:
        account_id = await linked(world)
        moved = {
            "origin_owner_id": "org_globex",
            "origin_owner_name": "Globex",
            "origin_username": "bob@globex.example",
        }
        await world.switch("PATCH", f"/accounts/{account_id}", moved)
        confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("bob"))
        assert confirmed.status_code == 200
        assert "bob" not in repr((await feed(world))[-1])
        assert "alice" not in repr((await feed(world, "org_globex"))[-1])
        await world.broker.delete("/v1/owners/org_globex", headers=world.as_service())
        left = repr(await feed(world)).lower()
        assert "bob" not in left
        assert "globex" not in left


async def test_an_erased_owners_account_that_shows_up_again_is_deleted_and_not_revived(database_url: str) -> None:
    async with open_world(database_url, sync={"enabled": False}, webhooks=False) as world:
        account_id = await linked(world)
        receipt = (await world.broker.delete("/v1/owners/org_acme", headers=world.as_service())).json()
        assert receipt["state"] == "complete"
        await world.link("alice", id=account_id)
        await world.switch("POST", "/lies", {"keep_deleted": True})
        await run_sweep(world.runtime, by="test")
        assert await shown(world) == {}
        await keep_house(world.runtime)
        path = f"/v1/erasures/{receipt['id']}"
        again = (await world.broker.get(path, headers=world.as_service())).json()
        assert again["state"] == "pending"
        await world.switch("POST", "/lies", {})
        await keep_house(world.runtime)
        assert world.project.accounts.find(account_id) is None
        assert (await world.broker.get(path, headers=world.as_service())).json()["state"] == "complete"
        assert await feed(world) == []


async def test_an_erasure_deletes_what_the_store_took_for_deleted(database_url: str) -> None:
    async with open_world(database_url, sync={"enabled": False}, webhooks=False) as world:
        account_id = await linked(world)
        await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user())
        await world.link("alice", id=account_id)
        receipt = (await world.broker.delete("/v1/owners/org_acme", headers=world.as_service())).json()
        assert receipt["state"] == "complete"
        assert world.project.accounts.find(account_id) is None


async def test_an_answer_from_before_the_deletion_revives_nothing(database_url: str) -> None:
    """A confirm that began after the disconnect, and whose answer left StackOne before the deletion."""
    gates: list[Gate] = []

    def gated(wire: Any) -> Gate:
        gates.append(Gate(wire))
        return gates[0]

    async with open_world(database_url, sync={"enabled": False}, webhooks=False, stackone_wire=gated) as world:
        account_id = await linked(world)
        path = f"/v1/linked-accounts/{account_id}"
        gates[0].hold = "before"
        leaving = asyncio.create_task(world.broker.delete(path, headers=world.as_user()))
        await gates[0].holding.wait()
        go_on = gates[0].let_go_later()
        gates[0].hold = "after"
        late = asyncio.create_task(world.broker.post(f"{path}/confirm", headers=world.as_user()))
        await gates[0].holding.wait()
        go_on()
        assert (await leaving).status_code == 204
        gates[0].release()
        assert (await late).status_code == 404
        assert await shown(world) == {}
        assert metric(world, "broker_accounts_revived_total") == 0


async def test_a_hint_during_a_failed_read_is_not_put_behind_the_backoff(database_url: str) -> None:
    gates: list[Gate] = []

    def gated(wire: Any) -> Gate:
        gates.append(Gate(wire))
        return gates[0]

    slow = {"enabled": False, "backoff_seconds": 60, "max_backoff_seconds": 900}
    async with open_world(database_url, sync=slow, stackone_wire=gated, stackone={"max_attempts": 1}) as world:
        account_id = await linked(world)
        await world.switch("PATCH", f"/accounts/{account_id}", {"label": "one"})
        assert await world.project.webhooks.settle(5)
        await world.switch("POST", "/faults", {"method": "GET", "path": "/accounts/", "times": 1, "status": 500})
        gates[0].hold = "after"
        reading = asyncio.create_task(refresh_due(world.runtime))
        await gates[0].holding.wait()
        await world.switch("PATCH", f"/accounts/{account_id}", {"label": "two"})
        assert await world.project.webhooks.settle(5)
        gates[0].release()
        assert await reading == 1
        assert await refresh_due(world.runtime) == 1
        assert (await shown(world))[account_id]["label"] == "two"


async def test_who_holds_a_lease_keeps_it_until_its_transaction_ends(database_url: str) -> None:
    async with open_world(database_url, sync={"enabled": False}, webhooks=False) as world:
        database = world.runtime.database
        async with database.transaction() as connection:
            lease = await acquire(connection, "work", "one", seconds=0)
        assert lease is not None
        order: list[str] = []

        is_held = asyncio.Event()

        async def take_over() -> None:
            await is_held.wait()
            async with database.transaction() as connection:
                assert await acquire(connection, "work", "two", seconds=30) is not None
                order.append("taken over")

        other = asyncio.create_task(take_over())
        async with database.transaction() as connection:
            await held(connection, lease)
            is_held.set()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(other), 0.3)
            order.append("done")
        await other
        assert order == ["done", "taken over"]


async def test_a_lease_that_was_lost_and_won_again_is_not_given_back_by_its_past(database_url: str) -> None:
    async with (
        open_world(database_url, sync={"enabled": False}, webhooks=False) as world,
        world.runtime.database.transaction() as connection,
    ):
        first = await acquire(connection, "work", "one", seconds=0)
        await acquire(connection, "work", "two", seconds=0)
        again = await acquire(connection, "work", "one", seconds=30)
        assert first is not None
        assert again is not None
        await release(connection, first)
        assert await acquire(connection, "work", "three", seconds=30) is None
