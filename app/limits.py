"""Rate limits: hits counted in a sliding window, in this process or, for all replicas together, in Redis.

While Redis is away each process counts for itself and asks Redis again every second: the limits are then multiplied by
the number of replicas, but never off.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
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
    USER_TOKENS_PER_SERVICE = "user_tokens_per_service"
    UNAUTHENTICATED_PER_ADDRESS = "unauthenticated_per_address"

    # Each hit is found by it; the enumeration's own hash is that of the name, worked out in Python each time.
    __hash__ = object.__hash__


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


Hit = tuple[Rate, tuple[str, ...]]


class _Window:
    """The hits of one caller at one rate: in the window of now, and in the one before it."""

    __slots__ = ("before", "count", "number")

    def __init__(self) -> None:
        self.number = 0
        self.count = 0
        self.before = 0


class Windows:
    """Hits counted in this process. What is left of the window before counts in proportion."""

    def __init__(self, items: Mapping[Rate, RateLimitItem], clock: Clock) -> None:
        """`items` says how many hits a rate allows, and in which time."""
        self._rates = {rate: (item.amount, float(item.get_expiry())) for rate, item in items.items()}
        self._clock = clock
        self._windows: dict[Hit, _Window] = {}

    def __len__(self) -> int:
        """Return how many windows are kept."""
        return len(self._windows)

    def take(self, hits: Sequence[Hit]) -> tuple[Rate, float] | None:
        """Count all hits, or none; return the rate that one of them is over, and when there is room again."""
        now = self._clock.monotonic()
        windows: list[_Window] = []
        for hit in hits:
            most, length = self._rates[hit[0]]
            number, into = divmod(now, length)
            window = self._windows.get(hit)
            if window is None:
                window = self._windows[hit] = _Window()
            if window.number != number:
                window.before = window.count if window.number == number - 1 else 0
                window.number, window.count = int(number), 0
            left = length - into
            if window.count + window.before * left / length >= most:
                # Either this window is full, or enough of the one before has to pass.
                is_full = window.count >= most or not window.before
                return hit[0], left if is_full else left - length * (most - window.count) / window.before
            windows.append(window)
        for window in windows:
            window.count += 1
        return None

    async def forget_old(self) -> None:
        """Drop what no longer counts, in strides: there may be a window for each user of a busy day."""
        for stride, hit in enumerate(list(self._windows)):
            number = self._clock.monotonic() // self._rates[hit[0]][1]
            if self._windows[hit].number < number - 1:
                del self._windows[hit]
            if stride % _SWEEP_STRIDE == 0:
                await asyncio.sleep(0)


class Limiter:
    """Counts hits and refuses those over a limit."""

    def __init__(self, settings: LimitSettings, *, clock: Clock, shared: SharedCounts | None, metrics: Metrics) -> None:
        """Count in `shared` if there is one, and in this process whenever that does not answer."""
        self.shared = shared
        self._items = {rate: parse(getattr(settings, rate.value)) for rate in Rate}
        self.windows = Windows(self._items, clock)
        self._redis = SlidingWindowCounterRateLimiter(shared.storage) if shared else None
        self._metrics = metrics

    async def take(self, rate: Rate, *who: str) -> None:
        """Count one hit by `who`. Raises TooManyRequests, and counts nothing, if that is over the limit."""
        await self.take_all((rate, who))

    async def take_all(self, *hits: Hit) -> None:
        """Count a hit at each of several rates, in one pass. Raises TooManyRequests if one is over its limit."""
        refused = await self._take_shared(hits) if self.shared is not None else self.windows.take(hits)
        if refused is not None:
            rate, wait = refused
            item = self._items[rate]
            self._metrics.limit_refusals.labels(rate.value).inc()
            wait = min(max(wait, 1.0), float(item.get_expiry()))
            raise TooManyRequests(f"the limit {rate.value} is {item}", retry_after=wait)

    async def _take_shared(self, hits: Sequence[Hit]) -> tuple[Rate, float] | None:
        assert self.shared is not None  # noqa: S101  so says the caller
        assert self._redis is not None  # noqa: S101  it comes with it
        redis, items = self._redis, [(self._items[rate], key_of(rate.value, *who)) for rate, who in hits]

        async def ask(_storage: RedisStorage) -> int:
            # One after the other: what is over a user's limit must not use up that of all users of the owner.
            for number, (item, key) in enumerate(items):
                if not await redis.hit(item, key):
                    return number
            return len(items)

        refused = await self.shared.ask(ask)
        if refused is None:
            return self.windows.take(hits)
        if refused == len(items):
            return None
        item, key = items[refused]
        stats = await self.shared.ask(lambda _storage: redis.get_window_stats(item, key))
        # The library computes the moment from the machine's own clock, so the wait is computed with that too.
        return hits[refused][0], stats.reset_time - time.time() if stats else 1.0


def key_of(*parts: str) -> str:
    """Name a counter. Hashed: ids are personal data, and a separator inside one must not make two callers one."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@asynccontextmanager
async def open_limiter(
    settings: LimitSettings, tls: TlsSettings, *, clock: Clock, metrics: Metrics
) -> AsyncIterator[Limiter]:
    """Make a Limiter; Redis, if it is configured, is first asked when something is counted."""
    shared: SharedCounts | None = None
    url = settings.storage_url.get_secret_value()
    if url.startswith("redis"):
        timeout = settings.storage_timeout_seconds
        shared = SharedCounts(_redis_storage(url, timeout, tls.ca_file), timeout=timeout, clock=clock, metrics=metrics)
    metrics.limits_shared.set(1 if shared else 0)
    limiter = Limiter(settings, clock=clock, shared=shared, metrics=metrics)
    sweeping = asyncio.create_task(_forget_old(limiter.windows))
    try:
        yield limiter
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
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


async def _forget_old(windows: Windows) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        await windows.forget_old()
