"""Old captures, however often and however late: one effect, and what is deleted stays deleted."""

import asyncio
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from app.linked_accounts.tables import account_events, linked_accounts
from app.sync.sweep import run_sweep
from tests.support.waiting import eventually
from tests.support.wires import Gate
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def events(world: World, account_id: str) -> list[str]:
    c = account_events.c
    async with world.runtime.database.reading() as connection:
        query = sa.select(c.kind).where(c.account_id == account_id).order_by(c.id)
        return list((await connection.execute(query)).scalars())


async def row(world: World, account_id: str) -> Any:
    async with world.runtime.database.reading() as connection:
        query = sa.select(linked_accounts).where(linked_accounts.c.account_id == account_id)
        return (await connection.execute(query)).mappings().one_or_none()


async def post_at_once(world: World, times: int) -> set[int]:
    """Post the bytes of the first delivery so many times at once, as somebody who captured it would."""
    [captured] = world.project.webhooks.log.after(0, 1)
    headers = {"x-stackone-signature": captured.signature or "", "content-type": "application/json"}
    path = "/v1/webhooks/stackone"
    posts = (world.broker.post(path, content=captured.raw, headers=headers) for _ in range(times))
    return {answer.status_code for answer in await asyncio.gather(*posts)}


async def test_a_hundred_replays_at_once_have_one_effect(world: World) -> None:
    account_id = await world.link("alice")

    async def linked() -> bool:
        return "account.linked" in await events(world, account_id)

    await eventually(linked, within=5)
    reads = len(await world.received("GET", f"/accounts/{account_id}"))
    assert await post_at_once(world, 100) == {200}
    assert await events(world, account_id) == ["hint", "account.linked"]
    assert len(await world.received("GET", f"/accounts/{account_id}")) == reads


async def test_a_hundred_first_deliveries_at_once_are_one(world: World) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    account_id = await world.link("alice")
    [dropped] = world.project.webhooks.log.after(0, 10)
    dropped.seal(world.project.webhooks.settings.secret, world.project.clock)
    assert await post_at_once(world, 100) == {200}

    async def linked() -> bool:
        return await events(world, account_id) == ["hint", "account.linked"]

    await eventually(linked, within=5)


async def test_a_late_created_after_deleted_stays_deleted(world: World) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    account_id = await world.link("alice")
    await run_sweep(world.runtime, by="test")
    await world.switch("POST", "/webhooks", {"mode": "deliver"})
    await world.switch("DELETE", f"/accounts/{account_id}")

    async def buried() -> bool:
        return (await row(world, account_id))["deleted_at"] is not None

    await eventually(buried, within=5)
    before = await row(world, account_id)
    replayed = await world.project.webhooks.replay(1)
    assert replayed.answers[-1].status == 200
    await run_sweep(world.runtime, by="test")
    assert await row(world, account_id) == before
    assert (await events(world, account_id)).count("account.unlinked") == 1
    listed = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
    assert listed.json()["data"] == []


async def test_a_read_that_began_before_the_deletion_does_not_revive(database_url: str) -> None:
    gates: list[Gate] = []

    def gated(wire: httpx2.AsyncBaseTransport) -> Gate:
        gates.append(Gate(wire))
        return gates[0]

    async with open_world(database_url, webhooks=False, stackone_wire=gated) as world:
        account_id = await world.link("alice")
        await run_sweep(world.runtime, by="test")
        # The answer is taken at StackOne now and arrives when the account has long been gone.
        [gate] = gates
        gate.hold = "after"
        path = f"/v1/linked-accounts/{account_id}/confirm"
        confirm = asyncio.create_task(world.broker.post(path, headers=world.as_user("alice")))
        await gate.holding.wait()
        await world.switch("DELETE", f"/accounts/{account_id}")
        await run_sweep(world.runtime, by="test")
        assert (await row(world, account_id))["deleted_at"] is not None
        gate.release()
        assert (await confirm).status_code == 404
        assert (await row(world, account_id))["deleted_at"] is not None
