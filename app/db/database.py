"""Visible transactions: work happens in blocks, and a database that does not do it is one kind of error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.engine import READING, WRITING, close_engine
from app.db.failures import Cause, DatabaseUnavailable, Failure, failure_of
from app.db.liveness import Liveness
from app.metrics import Metrics

logger = structlog.get_logger(__name__)

# True inside every block below. Upstream calls must never be made there (they would hold a connection and row locks
# for as long as another system likes); tests ask this at the moment a call arrives upstream.
transaction_open: ContextVar[bool] = ContextVar("transaction_open", default=False)

_SEALED: Final = "sealed"
# A driver's own errors reach us bare when a connection is opened; each carries one of these.
_CODES: Final = ("sqlstate", "sqlite_errorname")


def seal(connection: AsyncConnection, why: str) -> None:
    """Refuse every further statement of this transaction: what was done now has to be the last thing in it."""
    connection.info[_SEALED] = why


def _refuse_if_sealed(connection: sa.Connection, *_statement: Any) -> None:
    why = connection.info.get(_SEALED)
    if why is not None:
        message = f"no statement may follow in this transaction: {why}"
        raise RuntimeError(message)


class Database:
    """One engine. Work happens in blocks that can be seen: `transaction()`, `reading()` and `autocommit()`."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics | None = None) -> None:
        """Take over an engine made by `open_engine`."""
        self.engine = engine
        event.listen(engine.sync_engine, "before_cursor_execute", _refuse_if_sealed)
        self.dialect: Literal["sqlite", "postgresql"] = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        self._metrics = metrics
        self._liveness = Liveness(engine) if self.dialect == "postgresql" else None
        self._writing = engine.execution_options(**WRITING)
        self._reading = engine.execution_options(**engine.get_execution_options()[READING])

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction and commit it at the end of the block; any exception rolls it back.

        Raises DatabaseUnavailable if the database does not do what it is asked.
        """
        async with self._begin(self._writing) as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Have a connection for reading: each statement sees what was committed before it, and costs one wait.

        Raises DatabaseUnavailable like `transaction`.
        """
        async with self._begin(self._reading) as connection:
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """Have a connection for one statement that writes: it is committed when it returns, in one wait.

        Two statements need `transaction`. Raises DatabaseUnavailable like it.
        """
        async with self._begin(self._reading) as connection:
            yield connection

    @asynccontextmanager
    async def _begin(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        if transaction_open.get():
            # With SQLite's single connection an inner block would wait for the outer one for ever.
            message = "transactions do not nest"
            raise RuntimeError(message)
        token = transaction_open.set(True)
        is_connected = False
        try:
            async with engine.begin() as connection:
                is_connected = True
                # Of the pooled connection, so it outlives the transaction unless it is taken off.
                info = connection.info
                try:
                    yield connection
                finally:
                    info.pop(_SEALED, None)
        except Exception as error:
            unavailable = self._unavailable(error, is_connected=is_connected)
            if unavailable is None:
                raise
            raise unavailable from error
        finally:
            transaction_open.reset(token)

    def _unavailable(self, error: Exception, *, is_connected: bool) -> DatabaseUnavailable | None:
        """Say what an error means; None for one that is a mistake of ours."""
        is_the_database = isinstance(error, (PoolTimeoutError, DBAPIError, InvalidRequestError, OSError))
        if not is_the_database and not any(hasattr(error, code) for code in _CODES):
            return None
        failure = failure_of(error, is_connected=is_connected)
        return DatabaseUnavailable(self.found(failure)) if failure is not None else None

    def found(self, failure: Failure) -> Failure:
        """Note a failure, once: in the log and as a metric; return it."""
        logger.warning("database_unavailable", cause=failure.cause.value, sqlstate=failure.code, remedy=failure.remedy)
        if self._metrics is not None:
            self._metrics.database_failures.labels(failure.cause.value).inc()
        if failure.cause is Cause.READ_ONLY and self._liveness is not None:
            # After a failover the old connections lead to what is now a standby; after a role was made writable again
            # only new sessions know.
            self._liveness.retire()
        return failure

    async def close(self) -> None:
        """Close every connection, and wait until that has happened."""
        await close_engine(self.engine)
