"""The pool of connections to PostgreSQL: what load has opened stays open until the load is over."""

import time
from typing import Any, Final

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

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

    @property
    def next_entry(self) -> ConnectionPoolEntry | None:
        """The connection that is used next; None if one has to be opened or waited for."""
        return self._idle[-1] if self._idle else None

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
