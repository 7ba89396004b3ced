"""The budget of calls to StackOne, which allows 1000 a minute per API key over everything that uses it.

People come first: refreshing may use the budget up to a share, sweeping up to a smaller one, and what lies above is
kept for requests that somebody waits for. Each call counts, repeats included, in an exact window of a minute.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final

from limits.aio.storage import RedisStorage

from app.clock import Clock
from app.limits import SharedCounts
from app.metrics import Metrics

_WINDOW_SECONDS: Final = 60
_LONGEST_NAP_SECONDS: Final = 1.0
_OWNER_SHARE: Final = 0.25
_MOST_OWNERS: Final = 10_000


class Priority(Enum):
    """What a call is for: the share of the budget that may be used up before it, and how long it waits for room."""

    INTERACTIVE = ("interactive", 1.0, 0.0)
    REFRESH = ("refresh", 0.7, 20.0)
    SWEEP = ("sweep", 0.4, 120.0)

    def __init__(self, label: str, share: float, patience_seconds: float) -> None:
        """Spell the members out."""
        self.label = label
        self.share = share
        self.patience_seconds = patience_seconds


class BudgetSpent(Exception):
    """There is no room for this use until `retry_after` seconds from now."""

    def __init__(self, retry_after: float) -> None:
        """Keep the wait."""
        super().__init__("the budget of calls to StackOne is spent")
        self.retry_after = retry_after


class Budget:
    """Who may call StackOne now. Counted in this process and, where Redis is configured, over all replicas."""

    def __init__(
        self,
        requests_per_minute: int,
        *,
        clock: Clock,
        metrics: Metrics,
        shared: SharedCounts | None = None,
        shared_key: str = "stackone",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`shared_key` names the API key's counter in Redis; `sleep` is how background uses wait."""
        self._per_minute = requests_per_minute
        self._clock = clock
        self._metrics = metrics
        self._shared = shared
        self._shared_key = f"broker:budget:{shared_key}"
        self._sleep = sleep
        self._taken: deque[float] = deque()
        self._by_owner: dict[str, deque[float]] = {}
        self._background_from = 0.0
        self._naps = 0
        self._longest_left = 0.0
        metrics.budget_limit.set(requests_per_minute)
        metrics.budget_used.set_function(self._used)
        metrics.budget_waiting.set_function(lambda: float(self._naps))

    @property
    def waits(self) -> float:
        """For how many seconds a call of a job has still to wait for room; 0 where none does."""
        return self._longest_left if self._naps else 0.0

    def _used(self) -> float:
        now = self._clock.monotonic()
        return float(sum(taken > now - _WINDOW_SECONDS for taken in tuple(self._taken)))

    async def take(self, priority: Priority, owner_id: str | None = None) -> None:
        """Count one call. Raises BudgetSpent if there is no room for it.

        Of the calls that somebody waits for, one owner's may take a quarter: with made-up ids, a few users could
        otherwise spend what everybody else's requests need.
        """
        try:
            own = self._own_calls(owner_id) if priority is Priority.INTERACTIVE and owner_id is not None else None
            await self._take(priority)
            if own is not None:
                own.append(self._clock.monotonic())
        except BudgetSpent:
            self._metrics.budget_refusals.labels(priority.label).inc()
            raise

    async def wait(self, spent: BudgetSpent, waited: float) -> float:
        """Sleep towards the moment when there is room again; return how long was waited in all."""
        # In naps: room may come back sooner, when another use's calls leave the window.
        nap = min(max(spent.retry_after, 0.01), _LONGEST_NAP_SECONDS)
        self._naps += 1
        self._longest_left = spent.retry_after
        try:
            await self._sleep(nap)
        finally:
            self._naps -= 1
        return waited + nap

    def hold_background(self, seconds: float) -> None:
        """Keep background uses away for a while: StackOne said 429, so somebody else spends from the same budget."""
        self._background_from = max(self._background_from, self._clock.monotonic() + seconds)

    def _own_calls(self, owner_id: str) -> deque[float]:
        """Return when this owner's calls of the last minute were made. Raises BudgetSpent if they are too many."""
        now = self._clock.monotonic()
        own = self._by_owner.setdefault(owner_id, deque())
        while own and own[0] <= now - _WINDOW_SECONDS:
            own.popleft()
        most = max(1, int(self._per_minute * _OWNER_SHARE))
        if len(own) >= most:
            raise BudgetSpent(own[len(own) - most] + _WINDOW_SECONDS - now)
        if len(self._by_owner) > _MOST_OWNERS:
            self._by_owner = {
                owner: calls for owner, calls in self._by_owner.items() if calls and calls[-1] > now - _WINDOW_SECONDS
            }
            self._by_owner[owner_id] = own
        return own

    async def _take(self, priority: Priority) -> None:
        room = max(1, int(self._per_minute * priority.share))
        now = self._clock.monotonic()
        if priority is not Priority.INTERACTIVE and now < self._background_from:
            raise BudgetSpent(self._background_from - now)
        while self._taken and self._taken[0] <= now - _WINDOW_SECONDS:
            self._taken.popleft()
        if len(self._taken) >= room:
            raise BudgetSpent(self._taken[len(self._taken) - room] + _WINDOW_SECONDS - now)
        # Written down before anything is awaited, so that calls made at once cannot all see the same room. It also is
        # what remains known of this process' own calls when Redis goes away.
        self._taken.append(now)
        if self._shared is not None:
            wait = await self._shared.ask(lambda storage: self._take_shared(storage, room))
            if wait:
                self._taken.remove(now)
                raise BudgetSpent(wait)

    async def _take_shared(self, storage: RedisStorage, room: int) -> float:
        """Count in Redis; return 0, or the seconds until there is room."""
        if await storage.acquire_entry(self._shared_key, room, _WINDOW_SECONDS):
            return 0.0
        oldest, _count = await storage.get_moving_window(self._shared_key, room, _WINDOW_SECONDS)
        return min(max(oldest + _WINDOW_SECONDS - self._clock.now().timestamp(), 0.1), float(_WINDOW_SECONDS))
