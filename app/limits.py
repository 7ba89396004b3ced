"""Rate limits: hits counted in a sliding window, in this process or, for all replicas together, in Redis.

While Redis is away each process counts for itself and asks Redis again every second: the limits are then multiplied by
the number of replicas, but never off.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from app.clock import Clock
from app.errors import TooManyRequests, tls_failure
from app.metrics import Metrics
from app.settings import LimitSettings, TlsSettings

logger = structlog.get_logger(__name__)

_REDIS_CONNECTIONS = 8
_REDIS_PAUSE_SECONDS = 1.0
_SWEEP_SECONDS = 60.0
_SWEEP_STRIDE = 1000

Answer = TypeVar("Answer")


class Rate(Enum):
    """What is limited; each name is the setting (BROKER_LIMITS__...) that says how often."""

    MINT_PER_USER = "mint_per_user"
    MINT_PER_OWNER = "mint_per_owner"
    REQUESTS_PER_USER = "requests_per_user"
    REQUESTS_PER_OWNER = "requests_per_owner"
    REQUESTS_PER_SERVICE = "requests_per_service"
    UNAUTHENTICATED_PER_ADDRESS = "unauthenticated_per_address"


class SharedCounts:
    """Counts in Redis. After a failure nobody asks it for a second, and then one caller tries it for all."""

    def __init__(self, storage: RedisStorage, *, timeout: float, clock: Clock, metrics: Metrics) -> None:
        """`timeout` is how many seconds one question may take."""
        self.storage = storage
        self._timeout = timeout
        self._clock = clock
        self._metrics = metrics
        self._is_away = False
        self._ask_again_at = 0.0
        # A burst must not open a connection for each of its requests: that takes longer than waiting for one.
        self._turn = asyncio.Semaphore(_REDIS_CONNECTIONS)

    async def ask(self, question: Callable[[RedisStorage], Awaitable[Answer]]) -> Answer | None:
        """Return the answer of Redis, or None while it is away and the process has to count by itself."""
        async with self._turn:
            if not self._may_ask():
                return None
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await question(self.storage)
            except (StorageError, TimeoutError, OSError) as error:
                self._gone(error)
                return None
        if self._is_away:
            self._is_away = False
            self._metrics.limits_shared.set(1)
            logger.warning("limits_shared_again")
        return answer

    def _may_ask(self) -> bool:
        if not self._is_away:
            return True
        now = self._clock.monotonic()
        if now < self._ask_again_at:
            return False
        self._ask_again_at = now + _REDIS_PAUSE_SECONDS
        return True

    def _gone(self, error: Exception) -> None:
        self._ask_again_at = self._clock.monotonic() + _REDIS_PAUSE_SECONDS
        self._metrics.limits_shared.set(0)
        if not self._is_away:
            self._is_away = True
            reason = tls_failure(error) or type(error.__cause__ or error).__name__
            logger.error("limits_counted_per_process", reason=reason)


class Limiter:
    """Counts hits and refuses those over a limit."""

    def __init__(
        self, settings: LimitSettings, *, local: MemoryStorage, shared: SharedCounts | None, metrics: Metrics
    ) -> None:
        """Count in `shared` if there is one, and in `local` whenever that does not answer."""
        self.shared = shared
        self._items = {rate: parse(getattr(settings, rate.value)) for rate in Rate}
        self._local = SlidingWindowCounterRateLimiter(local)
        self._redis = SlidingWindowCounterRateLimiter(shared.storage) if shared else None
        self._metrics = metrics

    async def take(self, rate: Rate, *who: str) -> None:
        """Count one hit by `who`. Raises TooManyRequests, and counts nothing, if that is over the limit."""
        item, key = self._items[rate], key_of(rate.value, *who)
        if not await self._decide(lambda window: window.hit(item, key)):
            raise await self._refusal(rate, item, key)

    async def require_room(self, rate: Rate, *who: str) -> None:
        """Count nothing. Raises TooManyRequests if a hit by `who` would be over the limit."""
        item, key = self._items[rate], key_of(rate.value, *who)
        if not await self._decide(lambda window: window.test(item, key)):
            raise await self._refusal(rate, item, key)

    async def _decide(self, question: Callable[[SlidingWindowCounterRateLimiter], Awaitable[Answer]]) -> Answer:
        if self.shared is not None and self._redis is not None:
            redis = self._redis
            answer = await self.shared.ask(lambda _storage: question(redis))
            if answer is not None:
                return answer
        return await question(self._local)

    async def _refusal(self, rate: Rate, item: RateLimitItem, key: str) -> TooManyRequests:
        self._metrics.limit_refusals.labels(rate.value).inc()
        stats = await self._decide(lambda window: window.get_window_stats(item, key))
        # The library computes the moment from the machine's own clock, so the wait is computed with that too.
        wait = min(max(stats.reset_time - time.time(), 1.0), float(item.get_expiry()))
        return TooManyRequests(f"the limit {rate.value} is {item}", retry_after=wait)


def key_of(*parts: str) -> str:
    """Name a counter. Hashed: ids are personal data, and a separator inside one must not make two callers one."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@asynccontextmanager
async def open_limiter(
    settings: LimitSettings, tls: TlsSettings, *, clock: Clock, metrics: Metrics
) -> AsyncIterator[Limiter]:
    """Make a Limiter; Redis, if it is configured, is first asked when something is counted."""
    local = MemoryStorage()
    # On every hit the library starts a sweep over all keys, unless a task is in this place: ours sweeps in strides.
    local.timer = asyncio.create_task(_drop_expired(local))
    shared: SharedCounts | None = None
    url = settings.storage_url.get_secret_value()
    if url.startswith("redis"):
        timeout = settings.storage_timeout_seconds
        shared = SharedCounts(_redis_storage(url, timeout, tls.ca_file), timeout=timeout, clock=clock, metrics=metrics)
    metrics.limits_shared.set(1 if shared else 0)
    try:
        yield Limiter(settings, local=local, shared=shared, metrics=metrics)
    finally:
        local.timer.cancel()
        await asyncio.gather(local.timer, return_exceptions=True)
        if shared is not None:
            bridge: Any = shared.storage.bridge
            with suppress(Exception):  # it may be gone already; we are closing anyway
                await bridge.get_connection().aclose()


def _redis_storage(url: str, timeout: float, ca_file: Path | None) -> RedisStorage:
    # Optional: a broker without Redis does not have the client installed.
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # By default it retries for seconds. One retry without a wait covers connections that went stale in the pool.
        "retry": Retry(NoBackoff(), 1),
    }
    if ca_file is not None and url.startswith("rediss"):
        options["ssl_ca_certs"] = str(ca_file)
    return RedisStorage(f"async+{url}", wrap_exceptions=True, implementation="redispy", **options)


async def _drop_expired(storage: MemoryStorage) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        for number, key in enumerate(list(storage.expirations)):
            await storage.get(key)
            if number % _SWEEP_STRIDE == 0:
                await asyncio.sleep(0)
