"""Limits hold exactly, in memory and in Redis, and never open when Redis is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import TooManyRequests
from app.limits import Limiter, Rate, key_of, open_limiter
from app.metrics import Metrics
from app.settings import LimitSettings, TlsSettings
from tests.support.redis_server import RedisServer
from tests.support.tokens import StoppedClock

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(clock: StoppedClock | None = None, **settings: Any) -> AsyncIterator[Limiter]:
    limits = LimitSettings.model_validate({"mint_per_user": "10/hour", "storage_timeout_seconds": 10, **settings})
    async with open_limiter(limits, TlsSettings(), clock=clock or StoppedClock(), metrics=Metrics()) as limiter:
        yield limiter


async def allowed(limiter: Limiter, times: int, *who: str, rate: Rate = Rate.MINT_PER_USER) -> int:
    async def one() -> bool:
        try:
            await limiter.take(rate, *who)
        except TooManyRequests:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(times))))


async def test_of_two_hundred_at_once_exactly_ten_pass(storage_url: str) -> None:
    async with opened(storage_url=storage_url) as limiter:
        assert await allowed(limiter, 200, "alice") == 10
        assert await allowed(limiter, 20, "carol") == 10


async def test_two_processes_share_a_limit_through_redis(redis_server: RedisServer) -> None:
    async with opened(storage_url=redis_server.url) as one, opened(storage_url=redis_server.url) as other:
        assert sum(await asyncio.gather(allowed(one, 100, "alice"), allowed(other, 100, "alice"))) == 10


async def test_a_refusal_says_when_to_come_back_and_which_limit_it_was(storage_url: str) -> None:
    async with opened(storage_url=storage_url, mint_per_user="1/minute") as limiter:
        await limiter.take(Rate.MINT_PER_USER, "alice")
        with pytest.raises(TooManyRequests) as refused:
            await limiter.take(Rate.MINT_PER_USER, "alice")
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 60
    assert refused.value.detail == "the limit mint_per_user is 1 per 1 minute"


async def test_several_rates_are_counted_in_one_pass_and_a_full_one_is_named(storage_url: str) -> None:
    async with opened(storage_url=storage_url, mint_per_user="3/hour", mint_per_owner="5/hour") as limiter:

        async def mint(user: str) -> str | None:
            try:
                await limiter.take_all((Rate.MINT_PER_USER, (user,)), (Rate.MINT_PER_OWNER, ("acme",)))
            except TooManyRequests as refused:
                return refused.detail
            return None

        assert [await mint("alice") for _ in range(4)] == [None] * 3 + ["the limit mint_per_user is 3 per 1 hour"]
        assert [await mint("bob") for _ in range(3)] == [None] * 2 + ["the limit mint_per_owner is 5 per 1 hour"]
        if storage_url == "memory://":
            # What the owner's limit refused did not count as the user's.
            assert await allowed(limiter, 5, "bob") == 1


async def test_in_memory_what_is_left_of_the_window_before_counts_in_proportion() -> None:
    clock = StoppedClock()
    async with opened(clock, mint_per_user="10/minute") as limiter:
        clock.advance(60 - clock.monotonic() % 60)
        assert await allowed(limiter, 20, "alice") == 10
        clock.advance(59)
        with pytest.raises(TooManyRequests) as refused:
            await limiter.take(Rate.MINT_PER_USER, "alice")
        assert refused.value.retry_after == 1
        # A quarter of the next window has passed, so three quarters of the ten still count.
        clock.advance(16)
        assert await allowed(limiter, 20, "alice") == 3
        with pytest.raises(TooManyRequests) as refused:
            await limiter.take(Rate.MINT_PER_USER, "alice")
        wait = refused.value.retry_after
        assert wait is not None
        clock.advance(wait - 0.01)
        assert await allowed(limiter, 1, "alice") == 0
        clock.advance(0.02)
        assert await allowed(limiter, 2, "alice") == 1
        clock.advance(120)
        assert await allowed(limiter, 20, "alice") == 10
        assert await allowed(limiter, 20, "bob") == 10
        clock.advance(61)
        await limiter.windows.forget_old()
        assert await allowed(limiter, 20, "alice") < 10
        clock.advance(180)
        await limiter.windows.forget_old()
        assert len(limiter.windows) == 0


async def test_while_redis_is_away_the_process_counts_by_itself_and_then_goes_back(redis_server: RedisServer) -> None:
    clock = StoppedClock()
    async with opened(clock, storage_url=redis_server.url) as limiter:
        assert await allowed(limiter, 4, "alice") == 4
        redis_server.stop()
        assert await allowed(limiter, 200, "alice") == 10
        redis_server.start()
        # It is left alone for a second, and then asked again without anybody's help. It has forgotten all.
        assert await allowed(limiter, 5, "alice") == 0
        clock.advance(1.1)
        assert await allowed(limiter, 1, "alice") == 1
        assert await allowed(limiter, 20, "alice") == 9


async def test_a_redis_that_hangs_costs_one_short_wait_and_not_one_per_request(redis_server: RedisServer) -> None:
    async with opened(storage_url=redis_server.url, storage_timeout_seconds=1) as limiter:
        assert await allowed(limiter, 1, "alice") == 1
        started = time.monotonic()
        with redis_server.frozen():
            assert [await allowed(limiter, 1, "alice") for _ in range(12)].count(1) == 10
        assert time.monotonic() - started < 2.5


async def test_a_redis_that_refuses_us_does_not_open_the_limit(redis_server: RedisServer) -> None:
    async with opened(storage_url=redis_server.url.replace("//", "//:wrong-password@")) as limiter:
        assert await allowed(limiter, 50, "alice") == 10


async def test_a_redis_that_was_never_there_does_not_open_the_limit() -> None:
    async with opened(storage_url="redis://127.0.0.1:1") as limiter:
        assert await allowed(limiter, 50, "alice") == 10


def test_no_two_callers_share_a_counter() -> None:
    assert len({key_of("a/b", "c"), key_of("a", "b/c"), key_of("a", "b", "c"), key_of("a/b/c")}) == 4
    # Whatever stands between the parts may stand in them as well.
    clever = [("a", "b:c"), ("a:b", "c"), ('a", "b', "c"), ("a,b", "c"), ("a", "b,c"), ("", "ab"), ("ab", "")]
    assert len({key_of(*parts) for parts in clever}) == len(clever)
    assert "alice@acme.example" not in key_of("alice@acme.example")


@pytest.mark.parametrize(
    "rate", ["", "ten per minute", "10", "0/minute", "10/minute;5/second", "-1/minute", "10/fortnight"]
)
@pytest.mark.parametrize("limit", [*Rate])
def test_a_rate_that_cannot_be_read_is_a_mistake_in_the_settings(limit: Rate, rate: str) -> None:
    with pytest.raises(ValidationError, match="write a number and a time"):
        LimitSettings.model_validate({limit.value: rate})


@pytest.mark.parametrize("url", ["", "memory", "redis://", "http://127.0.0.1", "memcached://127.0.0.1", "redis:/x"])
def test_a_storage_that_is_not_known_is_a_mistake_in_the_settings(url: str) -> None:
    with pytest.raises(ValidationError, match="storage_url"):
        LimitSettings.model_validate({"storage_url": url})
