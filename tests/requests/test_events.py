"""The change feed: every change once, in order, with what changed and who caused it."""

import asyncio
from typing import Any

import pytest

from app.identity.caller import Scope
from app.linked_accounts.apply import apply_observations
from app.linked_accounts.changes import Source
from app.linked_accounts.decide import Observation
from app.linked_accounts.feed import read_feed
from app.stackone.models import Account
from tests.support.databases import SqliteDatabases
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def read(world: World, key: str | None = None, **query: Any) -> Any:
    answer = await world.broker.get("/v1/events", headers=world.as_service(key), params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def confirmed(world: World, user: str = "alice") -> str:
    account_id = await world.link(user)
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))
    assert answer.status_code == 200
    return account_id


async def test_a_change_says_what_changed_and_shows_the_account(world: World) -> None:
    account_id = await confirmed(world)
    first = await read(world)
    [linked] = first["data"]
    assert set(linked) == {
        "position", "kind", "account_id", "owner_id", "provider", "at", "source", "actor", "changes", "account",
        "repair",
    }  # fmt: skip
    assert (linked["kind"], linked["account_id"], linked["owner_id"]) == ("account.linked", account_id, "org_acme")
    assert linked["account"]["account_id"] == account_id
    await world.switch("PATCH", f"/accounts/{account_id}", {"status": "error", "label": "Payroll"})

    async def changed() -> Any:
        return (await read(world, after=first["next_cursor"]))["data"]

    updated, broken = await eventually(changed)
    assert updated["changes"] == {
        "status": {"from": "active", "to": "error"},
        "label": {"from": None, "to": "Payroll"},
    }
    assert (broken["kind"], broken["account"]["needs_reauth"], broken["actor"]) == (
        "account.needs_reauth",
        True,
        "stackone",
    )
    assert [linked["position"], updated["position"], broken["position"]] == [1, 2, 3]
    assert (await read(world, after=3)) == {"data": [], "next_cursor": "3", "head": "3"}


async def test_a_change_in_nothing_that_is_shown_but_the_time_is_no_news(world: World) -> None:
    account_id = await confirmed(world)
    before = (await read(world))["data"]
    await world.switch("PATCH", f"/accounts/{account_id}", {"credentials": {"api_key": "another"}})

    async def newer() -> bool:
        shown = await world.broker.get(f"/v1/accounts/{account_id}", headers=world.as_service())
        return bool(shown.json()["updated_at"] > before[0]["account"]["updated_at"])

    await eventually(newer)
    assert [entry["kind"] for entry in (await read(world))["data"]] == ["account.linked"]


async def test_a_limited_key_reads_its_owners_changes_only(world: World) -> None:
    mine, theirs = await confirmed(world, "alice"), await confirmed(world, "bob")
    acme = await world.create_key(Scope.EVENTS_READ, owners=("org_acme",))
    assert [entry["account_id"] for entry in (await read(world, acme))["data"]] == [mine]
    moved = {"origin_owner_id": "org_globex", "origin_owner_name": "Globex"}
    await world.switch("PATCH", f"/accounts/{mine}", moved)

    async def told() -> Any:
        return [entry for entry in (await read(world, acme))["data"] if entry["kind"] == "account.owner_changed"]

    [left] = await eventually(told)
    assert (left["owner_id"], left["changes"], left["account"]) == ("org_acme", {"owner": "left"}, None)
    everything = await read(world)
    assert {entry["account_id"] for entry in everything["data"]} == {mine, theirs}
    # The new owner is told that it joined, and nothing of whose it was.
    globex = await world.create_key(Scope.EVENTS_READ, owners=("org_globex",))
    joined = [entry for entry in (await read(world, globex))["data"] if entry["account_id"] == mine]
    assert [(entry["kind"], entry["changes"]) for entry in joined] == [
        ("account.owner_changed", {"owner": "joined"}),
    ]
    assert "Acme" not in str([entry["changes"] for entry in joined])
    reader = await world.create_key(Scope.ACCOUNTS_READ)
    refused = await world.broker.get("/v1/events", headers=world.as_service(reader))
    assert refused.status_code == 403


async def test_a_reader_may_wait_for_the_next_change(world: World) -> None:
    waiting = asyncio.create_task(read(world, wait=5))
    account_id = await confirmed(world)
    assert [entry["account_id"] for entry in (await waiting)["data"]] == [account_id]
    # Many readers wait, and none of them keeps a connection from the others.
    last = (await read(world))["data"][-1]["position"]
    readers = [asyncio.create_task(read(world, after=last, wait=1)) for _ in range(30)]
    await asyncio.sleep(0)
    listed = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"), timeout=3)
    assert listed.status_code == 200
    assert {len(answer["data"]) for answer in await asyncio.gather(*readers)} == {0}


@pytest.mark.parametrize("after", ["-1", "x", str(2**63), "1." + "f" * 17, "1,5", "\u0661", ""])
async def test_a_position_that_cannot_be_is_refused(world: World, after: str) -> None:
    answer = await world.broker.get("/v1/events", headers=world.as_service(), params={"after": after})
    assert answer.status_code == 422


async def test_a_query_that_the_feed_does_not_know_is_refused(world: World) -> None:
    answer = await world.broker.get("/v1/events", headers=world.as_service(), params={"cursor": "3"})
    assert (answer.status_code, answer.json()["errors"][0]["location"]) == (422, "query.cursor")


async def test_no_reader_misses_a_change_among_concurrent_writers(world: World) -> None:
    """A reader that remembers the highest position it saw gets every position, with writers racing to commit."""
    database, clock, metrics = world.runtime.database, world.clock, world.runtime.metrics

    def observed(number: int, step: int) -> Observation:
        now = clock.now()
        account = Account.model_validate(
            {"id": f"acc{number}", "provider": "p", "status": f"s{step}", "owner_id": "o", "updated_at": now}
        )
        return Observation(account.id, account, step + 1)

    async def write(writer: int) -> None:
        for step in range(15):
            async with database.transaction() as connection:
                observations = [observed(writer * 10 + number, step) for number in range(3)]
                await apply_observations(
                    connection,
                    observations,
                    source=Source.SWEEP,
                    actor="test",
                    now=clock.now(),
                    metrics=metrics,
                    settings=world.settings.sync,
                )

    seen: list[int] = []
    writers = asyncio.gather(*(write(writer) for writer in range(4)))
    while not writers.done() or len(seen) < 180:
        async with database.reading() as connection:
            entries = await read_feed(connection, after=seen[-1] if seen else 0, limit=50)
        seen.extend(entry.position for entry in entries)
        await asyncio.sleep(0.001)
    await writers
    assert seen == list(range(1, 181))


async def test_readers_that_wait_give_way_to_other_requests(sqlite_databases: SqliteDatabases) -> None:
    url, http = sqlite_databases.create(), {"max_connections": 16}
    async with open_world(url, webhooks=False, sync={"enabled": False}, http=http) as world:
        waiting = [
            asyncio.create_task(world.broker.get("/v1/events?wait=20", headers=world.as_service())) for _ in range(3)
        ]
        done, waits = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 2:
            done, waits = await asyncio.wait(waiting, timeout=5)
        assert [answer.result().json() for answer in done] == [{"data": [], "next_cursor": "0", "head": "0"}] * 2
        # Another credential has a wait of its own.
        other = await world.create_key(Scope.EVENTS_READ)
        another = asyncio.create_task(world.broker.get("/v1/events?wait=20", headers=world.as_service(other)))
        assert not (await asyncio.wait({another}, timeout=0.5))[0]
        assert len(world.runtime.waiting) == 2
        world.runtime.stopping.set()
        await asyncio.gather(another, *waits)
        assert not world.runtime.waiting


async def test_a_kind_that_no_change_has_is_refused(world: World) -> None:
    for kind in ("account.linkt", "hint", ""):
        answer = await world.broker.get("/v1/events", headers=world.as_service(), params={"kind": kind})
        assert (answer.status_code, answer.json()["errors"][0]["location"]) == (422, "query.kind.0"), kind
        assert "account.needs_reauth" in answer.json()["errors"][0]["message"]
