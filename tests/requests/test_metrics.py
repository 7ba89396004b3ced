"""What /metrics says of a broker, held against what was done to it."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import AppError
from app.gauges import read_gauges
from app.identity.caller import Scope
from app.identity.service_keys import keys
from app.identity.service_keys.tables import service_keys
from app.linked_accounts.tables import account_events, linked_accounts
from app.push.deliver import open_sender, push_once
from app.runtime import open_runtime
from app.stackone.breaker import BreakerState
from app.sync.refresh import refresh_due
from app.sync.sweep import run_sweep
from tests.support.waiting import eventually
from tests.support.world import PEPPER, World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

DESTINATION = {"name": "erp", "url": "http://127.0.0.1:9/in", "secret": "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtMTI="}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A world whose jobs run when a test says so."""
    async with open_world(
        database_url,
        webhooks=False,
        sync={"enabled": False, "sweep_interval_seconds": 3600},
        push={"destinations": [DESTINATION]},
        stackone={"breaker_failures": 3, "max_attempts": 1},
    ) as world:
        yield world


def scraped(world: World) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample as Prometheus' own parser reads it."""
    text = generate_latest(world.runtime.metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def told(world: World, name: str, **labels: str) -> float:
    await read_gauges(world.runtime)
    return scraped(world)[name, frozenset(labels.items())]


async def test_the_process_says_what_runs(world: World) -> None:
    samples = scraped(world)
    names = {name for name, _ in samples}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= names
    [(_, labels)] = [key for key in samples if key[0] == "broker_build_info"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", dict(labels)["version"])
    assert not [name for name in names if name.endswith("_created")]


async def test_tasks_on_the_event_loop_are_counted(world: World) -> None:
    is_over = asyncio.Event()

    async def count() -> float:
        return scraped(world)["broker_event_loop_tasks", frozenset()]

    before = await eventually(count)
    waiting = [asyncio.create_task(is_over.wait()) for _ in range(500)]

    async def seen() -> bool:
        return await count() >= before + 400

    await eventually(seen)
    is_over.set()
    await asyncio.gather(*waiting)


async def test_a_busy_event_loop_is_seen(world: World) -> None:
    def late() -> float:
        samples = scraped(world)
        all_of_them = samples["broker_event_loop_lag_seconds_count", frozenset()]
        return all_of_them - samples["broker_event_loop_lag_seconds_bucket", frozenset({("le", "0.25")})]

    assert late() == 0
    async with asyncio.timeout(20):
        while late() == 0:
            # Holds the loop up, which is what it is about, for longer than there is between two looks.
            deadline = asyncio.get_running_loop().time() + 0.9
            while asyncio.get_running_loop().time() < deadline:
                pass
            await asyncio.sleep(0)


async def test_a_due_account_grows_old_even_where_nobody_looks(world: World) -> None:
    account = await world.link()
    await run_sweep(world.runtime, by="test")
    assert await told(world, "broker_accounts_due_age_seconds") == 0
    await _set_due(world, account, datetime.now(UTC) - timedelta(seconds=100))
    assert await told(world, "broker_accounts_due_age_seconds") == pytest.approx(100, abs=20)
    before = scraped(world)["broker_accounts_due_age_seconds", frozenset()]
    await asyncio.sleep(0.01)
    assert scraped(world)["broker_accounts_due_age_seconds", frozenset()] > before
    await refresh_due(world.runtime)
    assert await told(world, "broker_accounts_due_age_seconds") == 0
    # A row that waits for its next try is not late.
    await _set_due(world, account, datetime.now(UTC) + timedelta(seconds=100))
    assert await told(world, "broker_accounts_due_age_seconds") == 0


async def _set_due(world: World, account: str, at: datetime) -> None:
    async with world.runtime.database.transaction() as connection:
        row = sa.update(linked_accounts).where(linked_accounts.c.account_id == account)
        await connection.execute(row.values(refresh_due_at=at, refresh_marks=linked_accounts.c.refresh_marks + 1))


async def test_the_last_sweep_is_the_databases_whoever_ran_it(world: World) -> None:
    await read_gauges(world.runtime)
    assert await told(world, "broker_last_sweep_timestamp_seconds") == 0
    assert await told(world, "broker_sweep_interval_seconds") == 3600
    await world.link()
    # As the command does it: with a runtime, and metrics, of its own.
    async with open_runtime(world.settings) as other:
        assert await run_sweep(other, by="cli") is not None
    assert await told(world, "broker_last_sweep_timestamp_seconds") == pytest.approx(
        datetime.now(UTC).timestamp(), abs=60
    )
    assert await told(world, "broker_last_sweep_state", state="done") == 1
    assert await told(world, "broker_last_sweep_state", state="stopped") == 0


async def test_a_first_fill_is_no_drift_and_what_comes_after_it_is(world: World) -> None:
    await world.link()
    await world.switch(
        "POST", "/faults", {"method": "GET", "path": "/accounts", "times": 50, "status": 400, "body": {}}
    )
    with pytest.raises(AppError):
        await run_sweep(world.runtime, by="test")
    await world.switch("DELETE", "/faults")
    assert await told(world, "broker_last_sweep_state", state="failed") == 1
    # One that failed has filled nothing: the next is still the first.
    await run_sweep(world.runtime, by="test")
    assert await told(world, "broker_sweep_drift", kind="added") == 0
    status = await world.broker.get("/v1/sync", headers=world.as_service())
    assert (status.json()["drift"], status.json()["first_fill"]) == (1, True)
    await world.link(provider="salesforce")
    await run_sweep(world.runtime, by="test")
    assert await told(world, "broker_sweep_drift", kind="added") == 1
    status = await world.broker.get("/v1/sync", headers=world.as_service())
    assert (status.json()["drift"], status.json()["first_fill"]) == (1, False)
    await run_sweep(world.runtime, by="test")
    assert await told(world, "broker_sweep_drift", kind="added") == 0


async def test_push_tells_how_far_behind_a_destination_is(world: World) -> None:
    sender = open_sender(world.runtime)
    [destination] = world.settings.push.destinations
    try:
        await push_once(world.runtime, sender=sender, destination=destination)
        assert await told(world, "broker_push_pending", destination="erp") == 0
        assert await told(world, "broker_push_age_seconds", destination="erp") == 0
        await world.link()
        await run_sweep(world.runtime, by="test")
        head = await told(world, "broker_feed_position")
        assert head > 0
        async with world.runtime.database.transaction() as connection:
            earlier = datetime.now(UTC) - timedelta(seconds=100)
            await connection.execute(sa.update(account_events).values(at=earlier))
        # Before it is in the outbox, and after the destination could not be reached.
        for _ in range(2):
            assert await told(world, "broker_push_pending", destination="erp") == head
            assert await told(world, "broker_push_age_seconds", destination="erp") == pytest.approx(100, abs=20)
            await push_once(world.runtime, sender=sender, destination=destination)
    finally:
        await sender.close()


@pytest.mark.parametrize(
    ("days", "ending", "ended"), [(20, 0, 0), (13, 1, 0), (-1, 0, 1), (-20, 0, 0)], ids=["far", "near", "over", "long"]
)
async def test_service_keys_that_end_are_counted(world: World, days: int, ending: int, ended: int) -> None:
    # The world's own ends tomorrow; who rotated has seen to it.
    async with world.runtime.database.transaction() as connection:
        [own] = await keys.list_keys(connection)
        await keys.revoke_key(connection, own.key_id, datetime.now(UTC))
    assert await told(world, "broker_service_key_expiry_timestamp_seconds") == math.inf
    ends_at = datetime.now(UTC) + timedelta(days=days)
    async with world.runtime.database.transaction() as connection:
        made = await _key(connection, ends_at=ends_at, world=world)
    assert await told(world, "broker_service_keys", state="ending") == ending
    assert await told(world, "broker_service_keys", state="ended") == ended
    first = await told(world, "broker_service_key_expiry_timestamp_seconds")
    assert first == (pytest.approx(ends_at.timestamp(), abs=1) if days > 0 else math.inf)
    if days > 0:
        async with world.runtime.database.transaction() as connection:
            await keys.rotate_key(
                connection,
                made.key_id,
                overlap_until=ends_at,
                now=datetime.now(UTC) - timedelta(days=60),
                pepper=PEPPER.encode(),
                token_bytes=world.runtime.token_bytes,
            )
        # The successor lives as long as it did, from the moment of the rotation.
        assert await told(world, "broker_service_keys", state="ending") == 0


async def _key(connection: Any, *, ends_at: datetime, world: World) -> keys.CreatedKey:
    made = await keys.create_key(
        connection,
        name="hr-sync",
        scopes=tuple(Scope),
        owner_ids=None,
        expires_at=datetime.now(UTC) + timedelta(days=90),
        now=datetime.now(UTC),
        pepper=PEPPER.encode(),
        token_bytes=world.runtime.token_bytes,
    )
    # No key is made that has ended: this one was made three months ago.
    await connection.execute(
        sa.update(service_keys).where(service_keys.c.key_id == made.key_id).values(expires_at=ends_at)
    )
    return made


async def test_the_breaker_and_the_budget_are_seen(world: World) -> None:
    def state(name: BreakerState) -> float:
        return scraped(world)["broker_stackone_breaker_state", frozenset({("state", name.name.lower())})]

    assert (state(BreakerState.CLOSED), state(BreakerState.OPEN)) == (1, 0)
    await world.mint()
    assert scraped(world)["broker_stackone_budget_used", frozenset()] > 0
    await world.switch("POST", "/faults", {"method": "*", "path": "/", "times": 500, "status": 503, "body": {}})
    for number in range(40):
        await world.mint(org_id=f"owner-{number}")
        if state(BreakerState.OPEN):
            break
    assert (state(BreakerState.CLOSED), state(BreakerState.OPEN)) == (0, 1)


async def test_an_issuers_keys_and_their_fetches_are_seen(world: World) -> None:
    issuer = ("issuer", world.issuer)
    await world.mint()
    samples = scraped(world)
    assert samples["broker_issuer_keys_known", frozenset({issuer})] == 1
    assert 0 <= samples["broker_issuer_keys_age_seconds", frozenset({issuer})] < 60
    assert samples["broker_issuer_key_fetches_total", frozenset({issuer, ("outcome", "fetched")})] == 1


async def test_the_pool_is_seen_while_it_is_used(world: World) -> None:
    def pool(state: str) -> float:
        return scraped(world)["broker_database_pool_connections", frozenset({("state", state)})]

    assert pool("in_use") == 0
    async with world.runtime.database.reading():
        assert pool("in_use") == 1
    assert (pool("in_use"), pool("idle") > 0) == (0, True)
    assert scraped(world)["broker_database_pool_limit", frozenset()] >= 1


@pytest.mark.parametrize("mistake", ["INSERT INTO service_keys (key_id) VALUES ('x')", "SELECT nonsense FROM nowhere"])
async def test_errors_of_the_database_are_counted_by_their_class(world: World, mistake: str) -> None:
    with pytest.raises((AppError, sa.exc.SQLAlchemyError)):
        async with world.runtime.database.transaction() as connection:
            await connection.execute(sa.text(mistake))
    found = {
        dict(labels)["sqlstate_class"] for name, labels in scraped(world) if name == "broker_database_errors_total"
    }
    is_postgresql = world.runtime.database.dialect == "postgresql"
    expected: Callable[[str], bool] = (
        (lambda kind: kind in {"23", "42"}) if is_postgresql else (lambda kind: kind.startswith("SQLITE_"))
    )
    assert [expected(kind) for kind in found] == [True]


async def test_how_long_an_account_was_broken_is_counted_when_it_works_again(world: World) -> None:
    account = await world.link()
    await run_sweep(world.runtime, by="test")
    await world.switch("PATCH", f"/accounts/{account}", {"status": "error"})
    await run_sweep(world.runtime, by="test")
    assert await told(world, "broker_accounts_needing_reauth") == 1
    await world.switch("PATCH", f"/accounts/{account}", {"status": "active"})
    await run_sweep(world.runtime, by="test")
    assert await told(world, "broker_accounts_needing_reauth") == 0
    assert scraped(world)["broker_account_recovery_seconds_count", frozenset()] == 1
