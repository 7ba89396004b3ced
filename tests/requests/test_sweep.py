"""The sweep: whatever was missed, and however StackOne lists, the store is put right and nothing is lost."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from app.db.leases import LeaseLost, acquire
from app.db.tables import metadata
from app.errors import Unavailable
from app.identity.caller import Scope
from app.linked_accounts.store import count_unowned
from app.linked_accounts.tables import account_events, linked_accounts
from app.sync import runs
from app.sync.preview import dry_run
from app.sync.runs import Sweep
from app.sync.sweep import LEASE, run_sweep
from app.sync.tables import SweepState, sweeps
from tests.support.waiting import eventually
from tests.support.wires import Meddled, Send
from tests.support.world import API_KEY, World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

QUIET: dict[str, Any] = {"enabled": False, "sweep_page_size": 4, "sweep_interval_seconds": 0}
FAST = {"requests_per_minute": 100_000, "timeout_seconds": 1, "total_timeout_seconds": 1, "max_attempts": 1}
BASIC = {"authorization": f"Basic {base64.b64encode(f'{API_KEY}:'.encode()).decode()}"}
Page = Callable[[int], Awaitable[httpx2.Response | None]]


@dataclass
class Quiet(World):
    """A world in which nothing runs by itself and no webhook arrives."""

    wire: Meddled = field(kw_only=True)

    def answer_pages(self, page: Page) -> list[int]:
        """Let `page` answer pages of listings, or not; return where the numbers of those that are asked for gather."""
        asked: list[int] = []

        async def meddle(request: httpx2.Request, send: Send) -> httpx2.Response:
            if request.url.path != "/accounts":
                return await send(request)
            asked.append(int(request.url.params["page"]))
            return await page(asked[-1]) or await send(request)

        self.wire.meddle = meddle
        return asked


@pytest.fixture
async def quiet(database_url: str) -> AsyncIterator[Quiet]:
    """Open a quiet world."""
    wires: list[Meddled] = []

    def meddled(wire: httpx2.AsyncBaseTransport) -> Meddled:
        wires.append(Meddled(wire))
        return wires[0]

    async with open_world(database_url, webhooks=False, stackone_wire=meddled, sync=QUIET, stackone=FAST) as world:
        yield Quiet(**vars(world), wire=wires[0])


async def stored(world: World) -> dict[str, tuple[Any, ...]]:
    """Return what the store holds of living accounts."""
    c = linked_accounts.c
    query = sa.select(c.account_id, c.owner_id, c.provider, c.status, c.label).where(
        c.deleted_at.is_(None), c.verified_at.is_not(None)
    )
    async with world.runtime.database.reading() as connection:
        return {row[0]: tuple(row[1:]) for row in await connection.execute(query)}


async def everything(world: World) -> list[list[tuple[Any, ...]]]:
    """Return every row of every table."""
    async with world.runtime.database.reading() as connection:
        return [[tuple(row) for row in await connection.execute(sa.select(table))] for table in metadata.sorted_tables]


def upstream(world: World) -> dict[str, tuple[Any, ...]]:
    return {a.id: (a.origin_owner_id, a.provider, a.status, a.label) for a in world.project.accounts}


async def sweep(world: World, percent: float | None = None) -> Sweep:
    done = await run_sweep(world.runtime, by="test", max_removal_percent=percent, longest_pause=0.01)
    assert done is not None
    return done


async def test_without_a_single_webhook_one_sweep_makes_the_store_equal(quiet: Quiet) -> None:
    ids = [await quiet.link("alice" if number % 2 else "bob", label=f"n{number}") for number in range(11)]
    first = await sweep(quiet)
    assert (first.state, first.listed, first.added, first.removed) == (SweepState.DONE, 11, 11, 0)
    assert await stored(quiet) == upstream(quiet)
    for account_id in ids[:3]:
        await quiet.switch("DELETE", f"/accounts/{account_id}")
    await quiet.switch("PATCH", f"/accounts/{ids[4]}", {"status": "error"})
    await quiet.switch("PATCH", f"/accounts/{ids[5]}", {"origin_owner_id": "org_else"})
    await quiet.link("alice")
    second = await sweep(quiet)
    assert (second.added, second.changed, second.removed, second.suspects) == (1, 2, 3, 3)
    assert await stored(quiet) == upstream(quiet)
    third = await sweep(quiet)
    assert (third.listed, third.drift) == (9, 0)


@pytest.mark.parametrize(
    "listing",
    [
        {"envelope": True},
        {"names": "v2"},
        {"envelope": True, "names": "v2", "first_page": 0},
        {"first_page": 0},
        {"repeat_rows": True},
        {"max_page_size": 3},
        {"max_page_size": 1, "first_page": 0, "repeat_rows": True},
    ],
)
async def test_every_shape_of_listing_is_read_to_its_end(quiet: Quiet, listing: dict[str, Any]) -> None:
    for _ in range(10):
        await quiet.link()
    await sweep(quiet)
    gone = await quiet.link()
    await sweep(quiet)
    await quiet.switch("DELETE", f"/accounts/{gone}")
    await quiet.switch("POST", "/listing", listing)
    done = await sweep(quiet)
    assert (done.state, done.listed, done.removed) == (SweepState.DONE, 10, 1)
    assert await stored(quiet) == upstream(quiet)


@pytest.mark.parametrize("listing", [{"end_early": 5}, {"ignore_page": True}, {"end_early": 0}])
async def test_half_a_list_removes_nothing(quiet: Quiet, listing: dict[str, Any]) -> None:
    for _ in range(10):
        await quiet.link()
    await sweep(quiet)
    await quiet.switch("POST", "/listing", listing)
    for percent in (None, 100):
        await sweep(quiet, percent)
        assert await stored(quiet) == upstream(quiet)


async def test_the_removal_limit_stops_a_mass_removal_and_says_how_to_override(quiet: Quiet) -> None:
    ids = [await quiet.link() for _ in range(10)]
    await sweep(quiet)
    for account_id in ids[:6]:
        await quiet.switch("DELETE", f"/accounts/{account_id}")
    stopped = await sweep(quiet)
    assert (stopped.state, stopped.removed, len(await stored(quiet))) == (SweepState.STOPPED, 0, 10)
    assert "--max-removal-percent" in (stopped.reason or "")
    assert await quiet.received("GET", f"/accounts/{ids[0]}") == []
    done = await sweep(quiet, 100)
    assert (done.state, done.removed) == (SweepState.DONE, 6)
    assert await stored(quiet) == upstream(quiet)


async def test_a_cut_page_leaves_the_sweep_unfinished_and_the_next_run_goes_on_from_there(quiet: Quiet) -> None:
    ids = [await quiet.link() for _ in range(12)]
    await sweep(quiet)
    await quiet.switch("DELETE", f"/accounts/{ids[0]}")

    async def cut_at_two(page: int) -> httpx2.Response | None:
        return httpx2.Response(200, content=b'[{"id": "acc') if page == 2 else None

    quiet.answer_pages(cut_at_two)
    with pytest.raises(Unavailable):
        await sweep(quiet)
    assert len(await stored(quiet)) == 12

    async def whole(_page: int) -> None:
        return None

    asked = quiet.answer_pages(whole)
    done = await sweep(quiet)
    assert asked[0] == 2
    assert (done.state, done.removed) == (SweepState.DONE, 1)
    assert await stored(quiet) == upstream(quiet)


async def test_a_sweep_that_nobody_took_up_for_a_day_is_given_up(quiet: Quiet) -> None:
    await quiet.link()

    async def never(_page: int) -> httpx2.Response:
        return httpx2.Response(500)

    async def always(_page: int) -> None:
        return None

    quiet.answer_pages(never)
    with pytest.raises(Unavailable):
        await sweep(quiet)
    async with quiet.runtime.database.transaction() as connection:
        old = quiet.clock.now() - timedelta(hours=25)
        await connection.execute(sa.update(sweeps).values(started_at=old))
    quiet.answer_pages(always)
    fresh = await sweep(quiet)
    async with quiet.runtime.database.reading() as connection:
        states = [(run.id, run.state) for run in await runs.recent(connection, 9)]
    assert states == [(fresh.id, SweepState.DONE), (fresh.id - 1, SweepState.FAILED)]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"status": None}, id="no status"),
        pytest.param({"id": "a\x00b"}, id="an id that no database keeps"),
        pytest.param({"updated_at": "yesterday"}, id="no time"),
    ],
)
async def test_a_row_that_cannot_be_read_removes_nothing_and_the_rest_is_taken(
    quiet: Quiet, row: dict[str, Any]
) -> None:
    ids = [await quiet.link() for _ in range(10)]
    await sweep(quiet)
    await quiet.switch("DELETE", f"/accounts/{ids[0]}")
    fresh = [await quiet.link() for _ in range(3)]

    async def holed(page: int) -> httpx2.Response | None:
        if page != 2:
            return None
        rows = (await quiet.stackone.get("/accounts?page=2&page_size=4", headers=BASIC)).json()
        return httpx2.Response(200, json=[{**rows[0], **row}, *rows[1:]])

    quiet.answer_pages(holed)
    done = await sweep(quiet)
    assert (done.state, done.removed, done.listed) == (SweepState.STOPPED, 0, 11)
    assert "listing_rows_unreadable" in (done.reason or "")
    assert set(await stored(quiet)) == {*ids, *fresh}


@pytest.mark.parametrize(
    "owner_id",
    ["x" * 300, "org_acme\x00", " org_acme", "org_acme\u202e", "\ud800org_acme", "", None, 7, {"id": "org_acme"}],
    ids=["too-long", "nul", "blank", "override", "surrogate", "empty", "null", "number", "object"],
)
async def test_an_owner_id_that_nobody_can_have_is_nobodys_and_no_hole(quiet: Quiet, owner_id: Any) -> None:
    odd = await quiet.link("alice")
    gone = await quiet.link()
    await sweep(quiet)
    await quiet.switch("DELETE", f"/accounts/{gone}")

    async def listed(_page: int) -> httpx2.Response | None:
        answer = (await quiet.stackone.get("/accounts?page=1&page_size=4", headers=BASIC)).json()
        rows = [{**row, "origin_owner_id": owner_id} if row["id"] == odd else row for row in answer]
        return httpx2.Response(200, text=json.dumps(rows) if _page == 1 else "[]")

    quiet.answer_pages(listed)
    done = await sweep(quiet)
    assert (done.state, done.removed) == (SweepState.DONE, 1)
    async with quiet.runtime.database.reading() as connection:
        assert await count_unowned(connection) == 1
    shown = await quiet.broker.get("/v1/linked-accounts", headers=quiet.as_user("alice"))
    assert shown.json()["data"] == []
    one = await quiet.broker.get(f"/v1/accounts/{odd}", headers=quiet.as_service())
    assert one.status_code == 404


async def test_a_page_that_is_refused_removes_nothing_and_the_rest_is_taken(quiet: Quiet) -> None:
    ids = [await quiet.link() for _ in range(10)]
    await sweep(quiet)
    await quiet.switch("DELETE", f"/accounts/{ids[0]}")
    fresh = [await quiet.link() for _ in range(3)]

    async def refused(page: int) -> httpx2.Response | None:
        return httpx2.Response(400, json={"message": "no"}) if page == 2 else None

    quiet.answer_pages(refused)
    done = await sweep(quiet)
    assert (done.state, done.removed) == (SweepState.STOPPED, 0)
    assert set(await stored(quiet)) == {*ids, *fresh}

    async def all_refused(page: int) -> httpx2.Response | None:
        return httpx2.Response(400, json={"message": "no"}) if page > 1 else None

    asked = quiet.answer_pages(all_refused)
    assert (await sweep(quiet)).state is SweepState.STOPPED
    assert asked == [0, 1, 2, 3, 4]


async def test_a_suspect_that_cannot_be_read_stays_and_does_not_keep_the_others(quiet: Quiet) -> None:
    ids = [await quiet.link() for _ in range(6)]
    await sweep(quiet)
    for account_id in ids[:3]:
        await quiet.switch("DELETE", f"/accounts/{account_id}")

    async def meddle(request: httpx2.Request, send: Send) -> httpx2.Response:
        if request.url.path == f"/accounts/{ids[1]}":
            return httpx2.Response(200, json={"id": ids[1]})
        return await send(request)

    quiet.wire.meddle = meddle
    done = await sweep(quiet)
    assert (done.state, done.removed, done.suspects) == (SweepState.STOPPED, 2, 3)
    assert set(await stored(quiet)) == {ids[1], *ids[3:]}


async def test_a_sweep_of_what_is_unchanged_writes_no_news(quiet: Quiet) -> None:
    for _ in range(9):
        await quiet.link()
    await sweep(quiet)
    async with quiet.runtime.database.reading() as connection:
        before = (await connection.execute(sa.select(sa.func.count()).select_from(account_events))).scalar_one()
    assert (await sweep(quiet)).drift == 0
    async with quiet.runtime.database.reading() as connection:
        after = (await connection.execute(sa.select(sa.func.count()).select_from(account_events))).scalar_one()
    assert before == after == 9


async def test_a_sweeper_that_lost_its_lease_writes_nothing_more(quiet: Quiet) -> None:
    for _ in range(8):
        await quiet.link()
    database = quiet.runtime.database

    async def usurped(page: int) -> None:
        if page == 2:
            async with database.transaction() as connection:
                await connection.execute(sa.text("UPDATE leases SET expires_at_ms = 0"))
                assert await acquire(connection, LEASE, "another", seconds=60) is not None

    quiet.answer_pages(usurped)
    with pytest.raises(LeaseLost):
        await sweep(quiet)
    assert len(await stored(quiet)) == 4
    assert await run_sweep(quiet.runtime, by="test") is None


async def test_one_of_many_gets_the_lease_and_fences_only_grow(quiet: Quiet) -> None:
    database = quiet.runtime.database
    fences: list[int] = []
    for round_number in range(10):

        async def contend(number: int, turn: int = round_number) -> int | None:
            async with database.transaction() as connection:
                lease = await acquire(connection, "contended", f"h{turn}-{number}", seconds=30)
            return lease.fence if lease else None

        won = [fence for fence in await asyncio.gather(*(contend(number) for number in range(8))) if fence]
        assert len(won) == 1
        fences += won
        async with database.transaction() as connection:
            await connection.execute(sa.text("UPDATE leases SET expires_at_ms = 0"))
    assert fences == sorted(set(fences))


async def test_a_dry_run_tells_the_same_and_writes_nothing(quiet: Quiet) -> None:
    ids = [await quiet.link() for _ in range(9)]
    await sweep(quiet)
    await quiet.switch("DELETE", f"/accounts/{ids[0]}")
    await quiet.switch("PATCH", f"/accounts/{ids[1]}", {"status": "error"})
    await quiet.link()
    before = await everything(quiet)
    told = await dry_run(quiet.runtime, max_removal_percent=None, listener=lambda _found: None)
    assert (told.added, told.changed, told.removed, told.complete) == (1, 1, 1, True)
    assert await everything(quiet) == before
    done = await sweep(quiet)
    assert (done.added, done.changed, done.removed) == (1, 1, 1)


async def test_a_service_asks_for_a_sweep_and_sees_how_it_went(database_url: str) -> None:
    async with open_world(database_url, webhooks=False, sync={"sweep_interval_seconds": 0}) as world:
        account_id = await world.link()
        asked = await world.broker.post("/v1/sync", headers=world.as_service())
        assert (asked.status_code, asked.json()["started"]) == (202, True)

        async def done() -> Any:
            answer = await world.broker.get("/v1/sync", headers=world.as_service())
            body = answer.json()
            return body["state"] == "idle" and body

        status = await eventually(done, within=10)
        assert (status["last_runs"][0]["state"], status["drift"], status["accounts"]) == ("done", 1, 1)
        assert list(await stored(world)) == [account_id]
        limited = await world.create_key(Scope.SYNC_WRITE, owners=("org_acme",))
        reader = await world.create_key(Scope.EVENTS_READ)
        for key in (limited, reader):
            refused = await world.broker.post("/v1/sync", headers=world.as_service(key))
            assert refused.status_code == 403


async def test_asking_twice_is_one_sweep(quiet: Quiet) -> None:
    first, second = [(await quiet.broker.post("/v1/sync", headers=quiet.as_service())).json() for _ in range(2)]
    assert (first["started"], second["started"], first["id"] == second["id"]) == (True, False, True)
    async with quiet.runtime.database.reading() as connection:
        waiting = await runs.unfinished(connection)
    assert waiting is not None
    assert (await sweep(quiet)).id == waiting.id


async def test_many_who_ask_at_once_get_one_sweep(quiet: Quiet) -> None:
    headers = quiet.as_service()
    asked = await asyncio.gather(*(quiet.broker.post("/v1/sync", headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in asked} == {202}
    assert sum(answer.json()["started"] for answer in asked) == 1
    assert len({answer.json()["id"] for answer in asked}) == 1


async def test_a_share_named_later_counts_for_a_sweep_that_waits(quiet: Quiet) -> None:
    headers = quiet.as_service()
    await quiet.broker.post("/v1/sync", headers=headers)
    later = await quiet.broker.post("/v1/sync", headers=headers, json={"max_removal_percent": 60})
    assert (later.json()["started"], later.json()["max_removal_percent"]) == (False, 60)
    assert (await sweep(quiet)).max_removal_percent == 60


async def test_old_sweeps_are_forgotten(quiet: Quiet) -> None:
    kept = 1000
    now = quiet.clock.now()
    row = {"state": "done", "requested_by": "test", "requested_at": now, "finished_at": now}
    async with quiet.runtime.database.transaction() as connection:
        await connection.execute(sa.insert(sweeps), [row] * (kept + 5))
    last = await sweep(quiet)
    async with quiet.runtime.database.reading() as connection:
        ids = list((await connection.execute(sa.select(sweeps.c.id).order_by(sweeps.c.id))).scalars())
    assert ids == list(range(last.id - kept + 1, last.id + 1))


@pytest.mark.parametrize(("percent", "state", "removed"), [(10, SweepState.STOPPED, 25), (100, SweepState.DONE, 27)])
async def test_a_resumed_sweep_remembers_what_it_has_removed(
    quiet: Quiet, percent: float, state: SweepState, removed: int
) -> None:
    ids = [await quiet.link() for _ in range(40)]
    await sweep(quiet)
    for account_id in ids[:27]:
        await quiet.switch("DELETE", f"/accounts/{account_id}")
    read = 0

    async def meddle(request: httpx2.Request, send: Send) -> httpx2.Response:
        nonlocal read
        if request.url.path != "/accounts":
            read += 1
            # One batch of suspects is read; then StackOne goes away.
            if read > 25:
                return httpx2.Response(503)
        return await send(request)

    quiet.wire.meddle = meddle
    with pytest.raises(Unavailable):
        await run_sweep(quiet.runtime, by="test", max_removal_percent=100, longest_pause=0.01)
    quiet.wire.meddle = None
    # Two suspects are left, which alone would be few enough.
    resumed = await run_sweep(quiet.runtime, by="test", max_removal_percent=percent)
    assert resumed is not None
    assert (resumed.state, resumed.removed) == (state, removed)
    assert len(await stored(quiet)) == 40 - removed
