"""Whether a pooled connection still works, judged by its use and age instead of a question before each use.

SQLAlchemy's own ping costs three waits for PostgreSQL before every checkout. A connection that was in use a second ago,
and whose socket the server has not closed since, is as good as one that was asked; the loop learns of a closed socket
by itself. One that has been idle longer is asked, in one wait: firewalls and balancers forget connections silently.
"""

import asyncio
import time
from typing import Any, Final, cast

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

# Not longer, though idle jobs would ask less: a pooler whose server refuses holds a statement as long as it is allowed
# to take, and a question only as long as its answer is waited for.
_IDLE_SECONDS: Final = 1.0
# Long enough for a server under load, short enough that a wait for a dead one leaves time to connect anew.
_ANSWER_WITHIN_SECONDS: Final = 1.5
# A database that stays read-only must not be connected to anew with every request.
_RETIRE_EVERY_SECONDS: Final = 1.0
_OPENED: Final = "opened"
_USED: Final = "used"


class Liveness:
    """Watches one engine's pool of connections to PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Begin to watch."""
        self._retired_before = 0.0
        pool = engine.sync_engine
        event.listen(pool, "connect", _note_opened)
        event.listen(pool, "checkin", _note_used)
        event.listen(pool, "checkout", self._look)

    def retire(self) -> None:
        """Use no connection of now again: it leads to a server that is not the one to talk to any more."""
        now = time.monotonic()
        if now - self._retired_before >= _RETIRE_EVERY_SECONDS:
            self._retired_before = now

    def trusts(self, entry: ConnectionPoolEntry) -> bool:
        """Tell whether a connection can be used as it is: nothing has to be asked, and none to be opened instead."""
        driver = entry.driver_connection
        if driver is None or driver.is_closed():
            return False
        opened: float = entry.info.get(_OPENED, 0.0)
        used: float = entry.info.get(_USED, 0.0)
        return opened >= self._retired_before and time.monotonic() - used <= _IDLE_SECONDS

    def _look(self, connection: Any, entry: ConnectionPoolEntry, _proxy: object) -> None:
        """Look at a connection that is about to be used. Raises for one that the pool has to replace."""
        now = time.monotonic()
        if connection.driver_connection.is_closed():
            # Whatever closed it, such as a restart, has closed the others as well.
            raise InvalidatePoolError
        if entry.info.get(_OPENED, now) < self._retired_before:
            raise DisconnectionError
        if now - entry.info.get(_USED, now) > _IDLE_SECONDS and not connection.run_async(_answers):
            raise InvalidatePoolError


def _note_opened(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info[_OPENED] = entry.info[_USED] = time.monotonic()


def _note_used(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info[_USED] = time.monotonic()


async def _answers(driver_connection: object) -> bool:
    # An extra of the package, which a broker on SQLite does without.
    from asyncpg.exceptions import InterfaceError, PostgresError  # noqa: PLC0415

    connection = cast("Any", driver_connection)
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_SECONDS):
            # Without arguments it goes by the simple protocol: one wait. An empty statement would do, but the driver
            # trips over the answer to one.
            await connection.execute("SELECT 1")
    except (OSError, InterfaceError, PostgresError):
        connection.terminate()
        return False
    return True
