"""The pool of connections: who gets one next, and that what load has opened stays open until the load is over."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, QueuePool

_LINGER_SECONDS: Final = 30.0


class BusyPool(AsyncAdaptedQueuePool):
    """Keeps more than `pool_size` connections for as long as more of them were needed a moment ago.

    SQLAlchemy's own closes each connection beyond the size when it is given back: of sixteen requests at once, with ten
    kept connections, every few open one anew, which costs more than the requests do. The one that was given back last
    is used first, so that the others stay idle and can go.
    """

    linger_seconds = _LINGER_SECONDS
    """How long connections beyond the size stay after they were last needed."""

    def __init__(self, creator: Any, pool_size: int = 5, max_overflow: int = 10, **rest: Any) -> None:
        """Take what SQLAlchemy's pool takes."""
        super().__init__(creator, pool_size=pool_size + max_overflow, max_overflow=0, **{**rest, "use_lifo": True})
        self._kept = pool_size
        self._most = pool_size + max_overflow
        self._crowded_at = 0.0
        # As they lie in the queue, which shows nobody what is in it.
        self._idle: list[ConnectionPoolEntry] = []

    def borrow(self, is_good: Callable[[ConnectionPoolEntry], bool]) -> ConnectionPoolEntry | None:
        """Take the connection that is next, if it can be used as it is; None if one has to be opened or waited for.

        `connect` wraps each connection for one use, for which it runs fifty functions, and needs a greenlet. Whoever
        runs a single statement needs neither, and gives the connection back by `give_back` whatever happens.
        """
        entry: Any = self._idle[-1] if self._idle else None
        if entry is None or entry._is_hard_or_soft_invalidated() or not is_good(entry):  # noqa: SLF001  said nowhere else
            return None
        return self._do_get()

    def give_back(self, entry: ConnectionPoolEntry) -> None:
        """Take back what `borrow` gave; where there is a surplus, it is closed, which takes a greenlet."""
        self.dispatch.checkin(entry.dbapi_connection, entry)
        self._do_return_conn(entry)

    @property
    def has_surplus(self) -> bool:
        """Tell whether a connection that is given back now is closed."""
        is_larger = self._most + self._overflow > self._kept
        return is_larger and time.monotonic() - self._crowded_at > self.linger_seconds

    def _do_get(self) -> ConnectionPoolEntry:
        record = super()._do_get()
        # Whoever waited may have got one that lay there for a moment.
        del self._idle[self.checkedin() :]
        if self._most + self._overflow - len(self._idle) > self._kept:
            self._crowded_at = time.monotonic()
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if not self.has_surplus:
            super()._do_return_conn(record)
            self._idle.append(record)
            return
        try:
            record.close()
        finally:
            self._dec_overflow()


class Places:
    """One place for each connection that a pool may have, given in the order in which they are asked for.

    SQLAlchemy's queue wakes whoever has waited for longest, but lets whoever asks in that moment have the connection,
    and the other one waits behind all others again: of a thousand requests at once, some waited until they gave up.
    """

    def __init__(self, pool: QueuePool) -> None:
        """Give as many as `pool` has connections."""
        self.limit: Final = pool.size() + max(pool._max_overflow, 0)  # noqa: SLF001  said nowhere else
        self._free = asyncio.Semaphore(self.limit)
        self._patience = pool.timeout()

    async def __aenter__(self) -> None:
        """Wait for a place. Raises SQLAlchemy's TimeoutError after the pool's time, like the pool itself."""
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError as error:
            message = f"none of {self.limit} connections became free within {self._patience:g} s"
            raise PoolTimeoutError(message) from error

    async def __aexit__(self, *_error: object) -> None:
        """Let the next one have it."""
        self._free.release()
