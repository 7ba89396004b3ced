"""Housekeeping resolves what there is news about and carries erasures on; retention forgets what is old."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from app.connect_sessions.tables import connect_sessions
from app.db.counters import counter_value
from app.db.leases import holding, leases
from app.jobs import Job, apply_retention, keep_house, repeat
from app.linked_accounts.tables import account_events
from app.owners.erasure import erase_owner
from app.owners.tables import erasures
from app.runtime import Runtime
from tests.support.broker import Broker

pytestmark = pytest.mark.anyio


async def statuses(broker: Broker) -> dict[str, str]:
    return {row["id"]: row["status"] for row in await broker.rows(connect_sessions)}


async def cursor(broker: Broker) -> int:
    async with broker.runtime.database.reading() as connection:
        return await counter_value(connection, "settled_sessions")


async def test_news_is_followed_up_once(broker: Broker) -> None:
    await broker.has_session("cs_1")
    await broker.has_session("cs_other", provider="salesforce")
    await broker.has_session("cs_foreign", owner_id="globex")
    await broker.has_account()
    await broker.has_event(position=7)
    await broker.has_event("a2", position=9, owner_id=None)
    assert await keep_house(broker.runtime) == 0
    assert await statuses(broker) == {"cs_1": "linked", "cs_other": "pending", "cs_foreign": "pending"}
    resolved = {row["id"]: row["resolved_at"] for row in await broker.rows(connect_sessions)}
    assert resolved["cs_1"] == broker.clock.now()
    assert await cursor(broker) == 9

    # Behind the cursor nothing is looked at again; ahead of it everything is.
    await broker.has_session("cs_2", provider="workday")
    await broker.has_account("a3", provider="workday")
    await broker.has_event("a3", position=8)
    await keep_house(broker.runtime)
    assert (await statuses(broker))["cs_2"] == "pending"
    await broker.has_event("a3", position=10, kind="account.updated")
    await keep_house(broker.runtime)
    assert (await statuses(broker))["cs_2"] == "linked"
    assert await cursor(broker) == 10
    await keep_house(broker.runtime)
    assert await cursor(broker) == 10


async def test_sessions_past_their_grace_end_without_any_news(broker: Broker) -> None:
    now = broker.clock.now()
    await broker.has_session("cs_over", expires_at=now - timedelta(minutes=10))
    await broker.has_session("cs_within", expires_at=now - timedelta(minutes=9))
    await keep_house(broker.runtime)

    assert await statuses(broker) == {"cs_over": "expired", "cs_within": "pending"}
    assert await cursor(broker) == 0


def counting_commits(broker: Broker) -> list[None]:
    """Return a list that grows with every transaction."""
    commits: list[None] = []
    sa.event.listen(broker.runtime.database.engine.sync_engine, "commit", lambda _connection: commits.append(None))
    return commits


async def test_one_round_resolves_everything_however_much_has_piled_up(broker: Broker) -> None:
    """In batches: no transaction, which on SQLite keeps everybody waiting, does more than five hundred."""
    now = broker.clock.now()
    commits = counting_commits(broker)
    await keep_house(broker.runtime)
    idle = len(commits)
    event: dict[str, Any] = {"kind": "account.updated", "source": "refresh", "actor": "stackone", "at": now}
    async with broker.runtime.database.transaction() as connection:
        await connection.execute(
            sa.insert(account_events), [{"position": n, "account_id": f"a{n}", **event} for n in range(1, 1002)]
        )
    commits.clear()
    await keep_house(broker.runtime)

    # News is read in three batches, and each is followed up by itself.
    assert len(commits) == idle + 5
    assert await cursor(broker) == 1001


async def test_however_many_sessions_an_owner_has_open_each_transaction_is_short(broker: Broker) -> None:
    now = broker.clock.now()
    await broker.has_session("cs_0", provider="workday")
    template = await broker.row(connect_sessions)
    async with broker.runtime.database.transaction() as connection:
        many = [{**template, "id": f"cs_{number:04}", "created_at": now} for number in range(1, 1201)]
        await connection.execute(sa.insert(connect_sessions), many)
    await broker.has_session("cs_last", created_at=now + timedelta(seconds=1))
    # So many sessions might have made it that only who confirms it can say which did.
    await broker.has_account(confirmed_by="user:ann", confirmed_at=now + timedelta(seconds=2))
    await broker.has_event(at=now + timedelta(seconds=2))
    resolved: list[int] = [0]
    engine = broker.runtime.database.engine.sync_engine
    sa.event.listen(engine, "commit", lambda _connection: resolved.append(0))

    def count(*statement: Any) -> None:
        resolved[-1] += "FROM linked_accounts JOIN account_events" in " ".join(statement[2].split())

    sa.event.listen(engine, "before_cursor_execute", count)
    await keep_house(broker.runtime)
    assert (await statuses(broker))["cs_last"] == "linked"
    assert [number for number in resolved if number] == [500, 500, 202]


async def test_one_round_ends_and_forgets_everything_that_is_old(broker: Broker) -> None:
    now = broker.clock.now()
    await broker.has_session("cs_0")
    template = await broker.row(connect_sessions)
    hint: dict[str, Any] = {"kind": "hint", "source": "webhook", "actor": "stackone", "account_id": "a1"}
    async with broker.runtime.database.transaction() as connection:
        ended = {**template, "expires_at": now - timedelta(days=90)}
        await connection.execute(
            sa.insert(connect_sessions), [{**ended, "id": f"cs_old_{number}"} for number in range(501)]
        )
        old = {**hint, "at": now - timedelta(days=30, seconds=1)}
        await connection.execute(sa.insert(account_events), [old for _ in range(501)])
    commits = counting_commits(broker)
    with capture_logs() as logs:
        await keep_house(broker.runtime)
        # Lease, two batches to resolve, a look each for reminders, invitations and erasures, and the lease given back.
        assert len(commits) == 7
        commits.clear()
        await apply_retention(broker.runtime)

    # Lease, two batches to forget, a look each for invitations, revocations, audit entries and keys, and the lease.
    assert len(commits) == 8
    assert await statuses(broker) == {"cs_0": "pending"}
    assert await broker.rows(account_events) == []
    retention = [entry for entry in logs if entry["event"] == "retention"]
    assert retention == [
        {"event": "retention", "log_level": "info", "sessions": 500, "hints": 500},
        {"event": "retention", "log_level": "info", "sessions": 1, "hints": 1},
    ]


async def test_nothing_is_forgotten_before_its_time(broker: Broker) -> None:
    now = broker.clock.now()
    await broker.has_session(status="expired", expires_at=now - timedelta(days=90) + timedelta(seconds=1))
    await broker.has_event(position=None, kind="hint", at=now - timedelta(days=30))
    await broker.has_event(position=1, at=now - timedelta(days=9999))
    with capture_logs() as logs:
        await apply_retention(broker.runtime)

    assert len(await broker.rows(connect_sessions)) == 1
    assert len(await broker.rows(account_events)) == 2
    assert "retention" not in {entry["event"] for entry in logs}


@pytest.mark.parametrize("old", ["session", "hint"])
async def test_either_kind_of_old_thing_is_reported(broker: Broker, old: str) -> None:
    ago = broker.clock.now() - timedelta(days=400)
    if old == "session":
        await broker.has_session(status="failed", expires_at=ago)
    else:
        await broker.has_event(position=None, kind="hint", at=ago)
    with capture_logs() as logs:
        await apply_retention(broker.runtime)

    [entry] = [entry for entry in logs if entry["event"] == "retention"]
    assert (entry["sessions"], entry["hints"]) == ((1, 0) if old == "session" else (0, 1))


async def test_only_one_process_does_it_at_a_time(broker: Broker) -> None:
    await broker.has_session(expires_at=broker.clock.now() - timedelta(days=1))
    database = broker.runtime.database
    async with holding(database, "housekeeping", "another process", seconds=60):
        assert await keep_house(broker.runtime) == -1
        assert await statuses(broker) == {"cs_1": "pending"}

    assert await keep_house(broker.runtime) == 0
    assert await statuses(broker) == {"cs_1": "expired"}
    lease = await broker.row(leases)
    assert (lease["name"], lease["expires_at_ms"]) == ("housekeeping", 0)
    assert lease["holder"].startswith("hk_")


async def test_an_erasure_that_was_put_off_is_carried_on(broker: Broker) -> None:
    broker.link()
    broker.project.faults.add({"path": "/accounts", "status": 500, "times": 2})
    for owner_id in ("acme", "globex"):
        await erase_owner(broker.runtime, owner_id, actor="service:ops")
    await keep_house(broker.runtime)

    assert {row["state"] for row in await broker.rows(erasures)} == {"complete"}
    assert list(broker.project.accounts) == []


async def test_housekeeping_leaves_the_budget_to_people(broker: Broker) -> None:
    broker.project.faults.add(
        {"method": "GET", "path": "/accounts", "status": 429, "times": 1, "headers": {"retry-after": "100"}}
    )
    await erase_owner(broker.runtime, "acme", actor="service:ops")
    before = len(broker.calls())
    await keep_house(broker.runtime)

    assert len(broker.calls()) == before
    assert (await broker.row(erasures))["state"] == "pending"


async def test_rounds_go_on_until_cancelled(broker: Broker) -> None:
    served = asyncio.Event()

    async def note() -> None:
        served.set()

    broker.wire.before = note
    await broker.has(
        erasures, id="er_1", owner_id="acme", state="pending", requested_by="u", requested_at=broker.clock.now()
    )
    rounds = asyncio.create_task(repeat(Job("housekeeping", keep_house, 0.01), broker.runtime))
    await asyncio.wait_for(served.wait(), timeout=10)
    done, _ = await asyncio.wait({rounds}, timeout=0.2)
    assert not done
    rounds.cancel()
    await asyncio.wait({rounds})


async def test_a_job_that_finds_nothing_looks_more_rarely_until_it_is_woken(broker: Broker) -> None:
    looked_at: list[float] = []
    looked, wake = asyncio.Event(), asyncio.Event()

    async def look(_: Runtime) -> int:
        looked_at.append(asyncio.get_running_loop().time())
        looked.set()
        return 0

    async def gaps(number: int) -> list[float]:
        looked_at.clear()
        while len(looked_at) <= number:
            looked.clear()
            await asyncio.wait_for(looked.wait(), timeout=10)
        return [later - earlier for earlier, later in pairwise(looked_at)]

    rounds = asyncio.create_task(repeat(Job("look", look, 0.01, 0.64, wake=wake), broker.runtime))
    growing = await gaps(8)
    assert all(gap >= 0.009 * min(2**number, 64) for number, gap in enumerate(growing)), growing
    wake.set()
    after = await gaps(2)
    assert max(after) < growing[-1] / 2, "the pause is the short one again"
    rounds.cancel()
    await asyncio.wait({rounds})
