"""The budget of calls to StackOne: exact, and people first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.limits import open_limiter
from app.metrics import Metrics
from app.settings import LimitSettings, TlsSettings
from app.stackone.budget import Budget, BudgetSpent, Priority
from tests.support.redis_server import RedisServer
from tests.support.tokens import StoppedClock

pytestmark = pytest.mark.anyio


async def spend(budget: Budget, priority: Priority, times: int) -> int:
    """Try to make so many calls at once; return how many there was room for."""

    async def one() -> bool:
        try:
            await budget.take(priority)
        except BudgetSpent:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(times))))


@asynccontextmanager
async def open_budget(clock: StoppedClock, per_minute: int, storage_url: str = "memory://") -> AsyncIterator[Budget]:
    metrics = Metrics()
    settings = LimitSettings.model_validate({"storage_url": storage_url, "storage_timeout_seconds": 10})
    async with open_limiter(settings, TlsSettings(), clock=clock, metrics=metrics) as limiter:
        yield Budget(per_minute, clock=clock, metrics=metrics, shared=limiter.shared)


async def test_no_more_calls_than_the_budget_in_any_minute(storage_url: str) -> None:
    async with open_budget(StoppedClock(), 100, storage_url) as budget:
        assert await spend(budget, Priority.INTERACTIVE, 150) == 100
        with pytest.raises(BudgetSpent) as spent:
            await budget.take(Priority.INTERACTIVE)
        assert 59 <= spent.value.retry_after <= 60


async def test_minting_is_served_when_sweeping_and_refreshing_have_to_wait(storage_url: str) -> None:
    async with open_budget(StoppedClock(), 100, storage_url) as budget:
        assert await spend(budget, Priority.SWEEP, 100) == 40
        assert await spend(budget, Priority.REFRESH, 100) == 30
        assert await spend(budget, Priority.SWEEP, 1) == 0
        assert await spend(budget, Priority.INTERACTIVE, 100) == 30
        assert await spend(budget, Priority.REFRESH, 1) == 0


async def test_the_window_slides_call_by_call() -> None:
    clock = StoppedClock()
    budget = Budget(10, clock=clock, metrics=Metrics())
    assert await spend(budget, Priority.INTERACTIVE, 6) == 6
    clock.advance(30)
    assert await spend(budget, Priority.INTERACTIVE, 6) == 4
    clock.advance(29.9)
    assert await spend(budget, Priority.INTERACTIVE, 1) == 0
    clock.advance(0.2)
    assert await spend(budget, Priority.INTERACTIVE, 9) == 6
    with pytest.raises(BudgetSpent) as spent:
        await budget.take(Priority.INTERACTIVE)
    assert spent.value.retry_after == pytest.approx(29.9)


async def test_replicas_share_one_budget_through_redis(redis_server: RedisServer) -> None:
    clock = StoppedClock()
    async with (
        open_budget(clock, 100, redis_server.url) as one,
        open_budget(clock, 100, redis_server.url) as other,
    ):
        counts = await asyncio.gather(spend(one, Priority.INTERACTIVE, 80), spend(other, Priority.INTERACTIVE, 80))
        assert sum(counts) == 100


async def test_without_redis_each_process_keeps_to_what_it_knows(redis_server: RedisServer) -> None:
    async with open_budget(StoppedClock(), 100, redis_server.url) as budget:
        assert await spend(budget, Priority.INTERACTIVE, 60) == 60
        redis_server.stop()
        # Never open: its own sixty count on.
        assert await spend(budget, Priority.INTERACTIVE, 100) == 40


async def test_background_uses_stay_away_while_stackone_says_429() -> None:
    clock = StoppedClock()
    budget = Budget(100, clock=clock, metrics=Metrics())
    budget.hold_background(7)
    assert await spend(budget, Priority.SWEEP, 1) + await spend(budget, Priority.REFRESH, 1) == 0
    assert await spend(budget, Priority.INTERACTIVE, 1) == 1
    clock.advance(7.1)
    assert await spend(budget, Priority.SWEEP, 1) == 1
