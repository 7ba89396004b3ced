"""Visible transactions: work happens in blocks, and a database that is away is one kind of error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import Unavailable

logger = structlog.get_logger(__name__)

# PostgreSQL SQLSTATE classes that mean "not now": connection, resources, operator intervention, lock not available.
_OUTAGE_CLASSES = ("08", "53", "57", "55", "40")
_OUTAGE_RETRY_AFTER_SECONDS = 2.0

# True inside `transaction()` and `reading()`. Upstream calls must never be made there (they would hold a connection
# and row locks for as long as another system likes); tests ask this at the moment a call arrives upstream.
transaction_open: ContextVar[bool] = ContextVar("transaction_open", default=False)

_SEALED: Final = "sealed"


def seal(connection: AsyncConnection, why: str) -> None:
    """Refuse every further statement of this transaction: what was done now has to be the last thing in it."""
    connection.info[_SEALED] = why


def _refuse_if_sealed(connection: sa.Connection, *_statement: Any) -> None:
    why = connection.info.get(_SEALED)
    if why is not None:
        message = f"no statement may follow in this transaction: {why}"
        raise RuntimeError(message)


class Database:
    """One engine. Work happens in blocks that can be seen: `transaction()` to write, `reading()` to read."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take over an engine made by `open_engine`."""
        self.engine = engine
        event.listen(engine.sync_engine, "before_cursor_execute", _refuse_if_sealed)
        self.dialect: Literal["sqlite", "postgresql"] = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        # BEGIN IMMEDIATE takes SQLite's write lock at once: a transaction that reads first and then writes would
        # otherwise lose updates or fail with SQLITE_BUSY_SNAPSHOT, which no busy timeout helps against.
        self._writing = engine.execution_options(sqlite_begin="IMMEDIATE")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction and commit it at the end of the block; any exception rolls it back.

        Raises Unavailable if the database cannot be reached in time.
        """
        async with self._begin(self._writing) as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction for reading only. Raises Unavailable like `transaction`."""
        async with self._begin(self.engine) as connection:
            yield connection

    @asynccontextmanager
    async def _begin(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        if transaction_open.get():
            # With SQLite's single connection an inner block would wait for the outer one for ever.
            message = "transactions do not nest"
            raise RuntimeError(message)
        token = transaction_open.set(True)
        try:
            async with engine.begin() as connection:
                # Of the pooled connection, so it outlives the transaction unless it is taken off.
                info = connection.info
                try:
                    yield connection
                finally:
                    info.pop(_SEALED, None)
        except (PoolTimeoutError, DBAPIError, OSError) as error:
            if not _is_outage(error):
                raise
            logger.warning("database_unavailable", error_type=type(getattr(error, "orig", None) or error).__name__)
            raise Unavailable("the database cannot be reached", retry_after=_OUTAGE_RETRY_AFTER_SECONDS) from error
        finally:
            transaction_open.reset(token)

    async def close(self) -> None:
        """Give back every connection."""
        await self.engine.dispose()


def _is_outage(error: Exception) -> bool:
    """Tell a database that is away or overloaded from a statement that is wrong."""
    if isinstance(error, (PoolTimeoutError, OSError, OperationalError, InterfaceError)):
        return True
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlstate", None) or ""
        return error.connection_invalidated or code.startswith(_OUTAGE_CLASSES)
    return False
