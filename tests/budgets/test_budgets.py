"""No warm request waits for the database, builds statements or runs code more than its budget says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.sync.refresh import refresh_due
from tests.budgets.limits import LIMITS, TOLERANCE
from tests.budgets.stage import OWNER, Stage, open_stage
from tests.support.databases import PostgresqlDatabases

pytestmark = pytest.mark.anyio

Act = Callable[[Stage], Awaitable[object]]


@pytest.fixture
async def stage(postgresql_databases: PostgresqlDatabases) -> AsyncIterator[Stage]:
    """Open a broker whose costs can be counted."""
    url = postgresql_databases.create()
    async with open_stage(url) as opened:
        yield opened
    postgresql_databases.give_back(url)


async def deliver_again(stage: Stage) -> None:
    await stage.deliver("the same as before")


async def deliver_twenty(stage: Stage) -> None:
    await asyncio.gather(*(stage.deliver() for _ in range(20)))


async def refresh_one(stage: Stage) -> None:
    assert await refresh_due(stage.runtime) == 1


async def refresh_none(stage: Stage) -> None:
    assert await refresh_due(stage.runtime) == 0


ACTS: dict[str, Act] = {
    "mint": Stage.mint,
    "mint to reconnect": Stage.reconnect,
    "list": lambda stage: stage.ask("GET", "/v1/linked-accounts", caller=stage.user),
    "get": lambda stage: stage.ask("GET", "/v1/linked-accounts/known000000000001", caller=stage.user),
    "get by service key": lambda stage: stage.ask("GET", "/v1/accounts/known000000000001", caller=stage.service),
    "list by service key": lambda stage: stage.ask("GET", f"/v1/owners/{OWNER}/linked-accounts", caller=stage.service),
    "confirm": Stage.confirm,
    "webhook": Stage.deliver,
    "webhook, repeated": deliver_again,
    "twenty webhooks at once": deliver_twenty,
    "events page": lambda stage: stage.ask("GET", "/v1/events?limit=100", caller=stage.service),
    "refresh of one account": refresh_one,
    "refresh, nothing due": refresh_none,
}
BEFORE: dict[str, Act] = {"refresh of one account": Stage.make_due, "refresh, nothing due": Stage.settle}


@pytest.mark.parametrize("name", LIMITS)
async def test_a_warm_request_costs_no_more_than_its_budget(stage: Stage, name: str) -> None:
    before = BEFORE.get(name)
    cost = await stage.cost(lambda: ACTS[name](stage), before=(lambda: before(stage)) if before else None)
    limit = LIMITS[name]
    assert cost.waits <= limit.waits, f"{name}: {cost}"
    assert cost.compiled <= limit.compiled, f"{name}: {cost}"
    assert cost.built <= limit.built, f"{name}: {cost}"
    assert cost.calls <= limit.calls * (1 + TOLERANCE), f"{name}: {cost}"


def test_every_act_has_a_budget() -> None:
    assert set(ACTS) == set(LIMITS)
