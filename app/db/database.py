"""Visible transactions: work happens in blocks, and a database that does not do it is one kind of error."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ManagesConnection, QueuePool
from sqlalchemy.util import greenlet_spawn

from app.db.engine import READING, WRITING, close_engine
from app.db.failures import Cause, DatabaseUnavailable, Failure, code_of, failure_of
from app.db.liveness import Liveness
from app.db.pool import BusyPool, Places
from app.db.statements import Row, Statement
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


async def _fetch(held: ManagesConnection, text: str, arguments: Sequence[Any]) -> Sequence[Any]:
    """Run a statement on a pooled connection, which is closed if nobody can tell what the server says next."""
    driver: Any = held.driver_connection
    try:
        records: Sequence[Any] = await driver.fetch(text, *arguments)
    except BaseException as error:
        if not hasattr(error, "sqlstate"):
            # Cancelled, out of time or cut off: what the server still says would be taken for the next answer.
            was_closed = driver.is_closed()
            driver.terminate()
            held.invalidate()
            if was_closed and isinstance(error, Exception):
                raise ConnectionResetError from error
        raise
    return records


class Database:
    """One engine. Work happens in blocks that can be seen: `transaction()`, `reading()` and `autocommit()`."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics | None = None) -> None:
        """Take over an engine made by `open_engine`."""
        self.engine = engine
        event.listen(engine.sync_engine, "before_cursor_execute", _refuse_if_sealed)
        self.dialect: Literal["sqlite", "postgresql"] = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        pool = engine.sync_engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101  what `open_engine` gives both databases
        self._pool = pool if isinstance(pool, BusyPool) else None
        self._places = Places(pool)
        self._metrics = metrics
        if metrics is not None:
            self._show_pool(metrics, pool)
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

    async def fetch(self, statement: Statement, parameters: Mapping[str, Any]) -> Sequence[Row]:
        """Run one statement of every request, a transaction by itself, and return its rows: one wait on PostgreSQL.

        Raises DatabaseUnavailable like `transaction`.
        """
        pool = self._pool
        if pool is None:
            async with self.autocommit() as connection:
                return [tuple(row) for row in await connection.execute(statement.query, parameters)]
        if transaction_open.get():
            message = "transactions do not nest"
            raise RuntimeError(message)
        compiled = statement.compiled(self.engine.dialect)
        arguments = compiled.arguments(parameters)
        is_connected = False
        try:
            async with self._places:
                entry = pool.borrow(self._liveness.trusts) if self._liveness is not None else None
                if entry is not None:
                    is_connected = True
                    try:
                        records = await _fetch(entry, compiled.text, arguments)
                    finally:
                        if pool.has_surplus:
                            await greenlet_spawn(pool.give_back, entry)
                        else:
                            # Nothing is waited for: no transaction is open, and the connection stays.
                            pool.give_back(entry)
                else:
                    # One has to be opened, or asked whether it still works.
                    pooled = await greenlet_spawn(pool.connect)
                    is_connected = True
                    try:
                        records = await _fetch(pooled, compiled.text, arguments)
                    finally:
                        await greenlet_spawn(pooled.close)
        except Exception as error:
            unavailable = self._unavailable(error, is_connected=is_connected)
            if unavailable is None:
                raise
            raise unavailable from error
        return compiled.rows(records)

    @asynccontextmanager
    async def _begin(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        if transaction_open.get():
            # With SQLite's single connection an inner block would wait for the outer one for ever.
            message = "transactions do not nest"
            raise RuntimeError(message)
        token = transaction_open.set(True)
        is_connected = False
        try:
            async with self._places, engine.begin() as connection:
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
        if failure is None:
            self._count(code_of(error))
            return None
        return DatabaseUnavailable(self.found(failure))

    def found(self, failure: Failure) -> Failure:
        """Note a failure, once: in the log and as a metric; return it."""
        logger.warning("database_unavailable", cause=failure.cause.value, sqlstate=failure.code, remedy=failure.remedy)
        if self._metrics is not None:
            self._metrics.database_failures.labels(failure.cause.value).inc()
            self._count(failure.code)
        if failure.cause is Cause.READ_ONLY and self._liveness is not None:
            # After a failover the old connections lead to what is now a standby; after a role was made writable again
            # only new sessions know.
            self._liveness.retire()
        return failure

    def _count(self, code: str | None) -> None:
        """Count an error by the class of its code: of an SQLSTATE the first two characters."""
        if self._metrics is not None:
            kind = "none" if code is None else code if code.startswith("SQLITE") else code[:2]
            self._metrics.database_errors.labels(kind).inc()

    def _show_pool(self, metrics: Metrics, pool: QueuePool) -> None:
        metrics.pool.labels("in_use").set_function(lambda: float(pool.checkedout()))
        metrics.pool.labels("idle").set_function(lambda: float(pool.checkedin()))
        metrics.pool_limit.set(self._places.limit)

    async def close(self) -> None:
        """Close every connection, and wait until that has happened."""
        await close_engine(self.engine)
