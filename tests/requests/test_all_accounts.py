"""One question across all owners, a copy that starts in one call, and positions that nobody can go on from."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.identity.caller import Scope
from app.jobs import apply_retention, keep_house
from app.linked_accounts.tables import account_events, linked_accounts
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio


async def ask(world: World, path: str, key: str | None = None, **query: Any) -> dict[str, Any]:
    answer = await world.broker.get(path, headers=world.as_service(key), params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def everything(world: World, path: str = "/v1/accounts", **query: Any) -> list[dict[str, Any]]:
    """Go through all pages."""
    rows: list[dict[str, Any]] = []
    page = await ask(world, path, limit=2, **query)
    for _ in range(50):
        rows += page["data"]
        if page["next_cursor"] is None:
            return rows
        page = await ask(world, path, limit=2, cursor=page["next_cursor"], **query)
    raise AssertionError("it has no end")


async def linked(world: World, user: str, **fields: object) -> str:
    account_id = await world.link(user, **fields)  # type: ignore[arg-type]
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))
    assert answer.status_code == 200
    return account_id


async def read_again(world: World, account_id: str, user: str, **changes: object) -> None:
    await world.switch("PATCH", f"/accounts/{account_id}", changes)
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))


@pytest.mark.both_databases
async def test_who_must_reconnect_is_one_call(database_url: str) -> None:
    async with open_world(database_url, webhooks=False) as world:
        ids = {}
        for user, provider in (("alice", "bamboohr"), ("bob", "bamboohr"), ("alice", "salesforce"), ("bob", "workday")):
            ids[user, provider] = await linked(world, user, provider=provider)
        broken = [("bob", "workday"), ("alice", "bamboohr"), ("bob", "bamboohr")]
        for user, provider in broken:
            await read_again(world, ids[user, provider], user, status="error")
        # The longest broken first, over all owners, whatever the size of the pages.
        assert [row["account_id"] for row in await everything(world, needs_reauth=True)] == [ids[one] for one in broken]
        assert {row["account_id"] for row in await everything(world)} == set(ids.values())
        for query, expected in (
            ({"needs_reauth": False}, {("alice", "salesforce")}),
            ({"usable": True}, {("alice", "salesforce")}),
            ({"usable": False}, set(broken)),
            ({"owner_id": "org_acme"}, {("alice", "bamboohr"), ("alice", "salesforce")}),
            ({"provider": ["BambooHR", "workday"]}, {key for key in ids if key[1] != "salesforce"}),
            ({"status": "error", "provider": "bamboohr"}, {("alice", "bamboohr"), ("bob", "bamboohr")}),
            ({"account_id": [ids["bob", "workday"], "nobody"]}, {("bob", "workday")}),
            ({"updated_since": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, set()),
        ):
            found = {row["account_id"] for row in await everything(world, **query)}
            assert found == {ids[one] for one in expected}, query
        bobs = await world.create_key(Scope.ACCOUNTS_READ, owners=("org_globex",))
        shown = await ask(world, "/v1/accounts", bobs)
        assert {row["owner_id"] for row in shown["data"]} == {"org_globex"}
        refused = await world.broker.get("/v1/accounts?owner_id=org_acme", headers=world.as_service(bobs))
        assert refused.status_code == 403

        owners = await everything(world, "/v1/owners")
        assert [(row["owner_id"], row["accounts"], row["needs_reauth"]) for row in owners] == [
            ("org_acme", 2, 1),
            ("org_globex", 2, 2),
        ]
        acme = await ask(world, "/v1/owners/org_acme")
        assert (acme["by_status"], acme["owner_name"]) == ({"active": 1, "error": 1}, "Acme Inc")
        assert acme["last_change_at"] is not None
        assert (await world.broker.get("/v1/owners/nobody", headers=world.as_service())).status_code == 404
        assert (await world.broker.get("/v1/owners/org_acme", headers=world.as_service(bobs))).status_code == 403
        assert [row["owner_id"] for row in (await ask(world, "/v1/owners", bobs))["data"]] == ["org_globex"]


async def test_a_query_that_makes_no_sense_is_refused(world: World) -> None:
    for query in (
        "owner=org_acme",
        "limit=201",
        "needs_reauth=maybe",
        "updated_since=yesterday",
        "updated_since=2026-01-01T00:00:00",
        "snapshot=true&needs_reauth=true",
        "cursor=eA",
        "cursor=fHw",
        "cursor=MXx8YQ",
        "&".join(f"account_id={number}" for number in range(201)),
    ):
        answer = await world.broker.get(f"/v1/accounts?{query}", headers=world.as_service())
        assert answer.status_code == 422, query


@pytest.mark.both_databases
async def test_a_copy_starts_with_a_snapshot_and_goes_on_with_the_feed(database_url: str) -> None:
    async with open_world(database_url, webhooks=False) as world:
        ids = [await linked(world, user, multiple=True) for user in ("alice", "bob") * 3]
        first = await ask(world, "/v1/accounts", snapshot=True, limit=2)
        copy = {row["account_id"]: row for row in first["data"]}
        # While the pages are read: one that was copied breaks, one that was not is unlinked, and a new one comes.
        await read_again(world, first["data"][0]["account_id"], _user(first["data"][0]), status="error")
        gone = max(ids)
        owner = "alice" if ids.index(gone) % 2 == 0 else "bob"
        await world.broker.delete(f"/v1/linked-accounts/{gone}", headers=world.as_user(owner))
        new = await linked(world, "alice", multiple=True)
        page = first
        while page["next_cursor"] is not None:
            page = await ask(world, "/v1/accounts", snapshot=True, limit=2, cursor=page["next_cursor"])
            assert page["feed_position"] == first["feed_position"]
            copy |= {row["account_id"]: row for row in page["data"]}
        after = first["feed_position"]
        events = await ask(world, "/v1/events", after=after)
        for event in events["data"]:
            if event["account"] is None:
                copy.pop(event["account_id"], None)
            else:
                copy[event["account_id"]] = event["account"]
        now = {row["account_id"]: row for row in await everything(world)}
        assert copy == now
        assert new in copy
        assert gone not in copy
        assert events["head"] == events["next_cursor"].partition(".")[0]
        assert (await ask(world, "/v1/events", after=events["next_cursor"]))["data"] == []


def _user(row: dict[str, Any]) -> str:
    return {"org_acme": "alice", "org_globex": "bob"}[row["owner_id"]]


@pytest.mark.both_databases
async def test_a_restored_backup_and_what_is_no_longer_kept_are_noticed(database_url: str) -> None:
    sync = {"enabled": False, "change_retention_days": 30}
    async with open_world(database_url, webhooks=False, sync=sync) as world:
        for user in ("alice", "bob", "alice"):
            await linked(world, user, multiple=True)
        page = await ask(world, "/v1/events", limit=2)
        cursor, head = page["next_cursor"], int(page["head"])
        assert len((await ask(world, "/v1/events", after=cursor))["data"]) == head - 2

        async def refused(after: str, path: str = "/v1/events") -> dict[str, Any]:
            answer = await world.broker.get(path, headers=world.as_service(), params={"after": after})
            assert (answer.status_code, answer.json()["code"]) == (410, "feed_position_gone"), answer.text
            assert "snapshot=true" in answer.json()["detail"]
            return dict(answer.json())

        # Another change stands where the reader stood: a backup was restored, and what followed was done again.
        async with world.runtime.database.transaction() as connection:
            is_there = account_events.c.position == 2
            await connection.execute(sa.update(account_events).where(is_there).values(account_id="another"))
        await refused(cursor)
        assert (await ask(world, "/v1/events", after="2"))["data"], "a number alone says nothing that could be compared"
        await refused(str(head + 1))
        account_id = page["data"][0]["account_id"]
        await refused(str(head + 1), f"/v1/accounts/{account_id}/events")
        # Old changes go once everybody here has read them; the newest stays, since it ends the feed.
        await keep_house(world.runtime)
        async with world.runtime.database.transaction() as connection:
            old = world.clock.now() - timedelta(days=31)
            await connection.execute(sa.update(account_events).values(at=old))
        await apply_retention(world.runtime)
        kept = (await ask(world, "/v1/events", after=str(head - 1)))["data"]
        assert [row["position"] for row in kept] == [head]
        detail = (await refused("0"))["detail"]
        assert "CHANGE_RETENTION_DAYS" in detail


async def test_the_feed_can_be_asked_for_kinds_owners_and_one_account(database_url: str) -> None:
    async with open_world(database_url, webhooks=False) as world:
        mine, bobs = await linked(world, "alice"), await linked(world, "bob")
        await read_again(world, mine, "alice", status="error")
        assert [row["kind"] for row in (await ask(world, "/v1/events", kind="account.needs_reauth"))["data"]] == [
            "account.needs_reauth"
        ]
        assert {row["owner_id"] for row in (await ask(world, "/v1/events", owner_id="org_globex"))["data"]} == {
            "org_globex"
        }
        of_one = await ask(world, f"/v1/accounts/{mine}/events", limit=2)
        rest = await ask(world, f"/v1/accounts/{mine}/events", after=of_one["next_cursor"])
        assert [row["kind"] for row in (*of_one["data"], *rest["data"])] == [
            "account.linked",
            "account.updated",
            "account.needs_reauth",
        ]
        key = await world.create_key(Scope.EVENTS_READ, owners=("org_acme",))
        for foreign in (bobs, "nobody"):
            answer = await world.broker.get(f"/v1/accounts/{foreign}/events", headers=world.as_service(key))
            assert answer.status_code == 404
        refused = await world.broker.get("/v1/events?owner_id=org_globex", headers=world.as_service(key))
        assert refused.status_code == 403


async def test_an_answer_is_as_fresh_as_was_asked_for(database_url: str) -> None:
    async with open_world(database_url, webhooks=False, sync={"enabled": False}) as world:
        account_id = await linked(world, "alice")
        await world.switch("PATCH", f"/accounts/{account_id}", {"label": "new"})
        path = f"/v1/accounts/{account_id}"
        assert (await ask(world, path))["label"] is None
        assert (await ask(world, path, max_age=3600))["label"] is None
        before = len(await world.received("GET", f"/accounts/{account_id}"))
        await _age(world, minutes=10)
        answers = await asyncio.gather(*(ask(world, path, max_age=60) for _ in range(20)))
        assert {(row["label"], row["stale"]) for row in answers} == {("new", False)}
        # All of them waited for one read.
        assert len(await world.received("GET", f"/accounts/{account_id}")) == before + 1

        await world.switch("POST", "/faults", {"path": "/accounts", "status": 503, "times": None})
        await _age(world, minutes=10)
        stale = await world.broker.get(path, headers=world.as_service(), params={"max_age": 60})
        assert (stale.status_code, stale.json()["stale"]) == (200, True)
        assert 590 <= int(stale.headers["age"]) <= 700
        must: dict[str, Any] = {"max_age": 60, "must_be_fresh": True}
        refused = await world.broker.get(path, headers=world.as_service(), params=must)
        assert refused.status_code == 503


async def _age(world: World, **span: float) -> None:
    async with world.runtime.database.transaction() as connection:
        at = world.clock.now() - timedelta(**span)
        await connection.execute(sa.update(linked_accounts).values(verified_at=at))


async def test_an_account_that_breaks_by_itself_is_on_the_list(world: World) -> None:
    account_id = await linked(world, "alice")
    await world.switch("PATCH", f"/accounts/{account_id}", {"status": "expired"})

    async def listed() -> bool:
        rows = (await ask(world, "/v1/accounts", needs_reauth=True))["data"]
        return [row["account_id"] for row in rows] == [account_id]

    await eventually(listed)
