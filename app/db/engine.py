"""The engine of either database, and what differs between them.

engine               reading()                   transaction()
SQLite               no BEGIN                    BEGIN IMMEDIATE
PostgreSQL           no BEGIN                    BEGIN
transaction pooler   no BEGIN                    BEGIN, its limits
"""

from typing import Any, Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.db.connector import DRIVER, Connector
from app.db.pool import BusyPool
from app.db.sqlite import SqliteConnections
from app.settings import DatabaseSettings
from app.settings.database_url import Pooler, SqliteUrl

# Execution options of an engine: what `Database` adds to them for reading, and what a block of it has asked for.
READING: Final = "broker_reading"
_WRITES: Final = "broker_writes"
WRITING: Final = {_WRITES: True}

_sqlite_connections: WeakKeyDictionary[sa.Engine, SqliteConnections] = WeakKeyDictionary()


def open_engine(settings: DatabaseSettings, *, statement_timeout_seconds: float | None = None) -> AsyncEngine:
    """Create the engine for the configured URL; it connects at first use."""
    timeout = statement_timeout_seconds or settings.statement_timeout_seconds
    if isinstance(settings.target, SqliteUrl):
        return _sqlite_engine(settings, settings.target, timeout)
    is_pooled = settings.pooled_by is Pooler.TRANSACTION
    cache: dict[str, Any] = (
        # The unnamed statement: a named one would stay on whichever server it was prepared on.
        {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str} if is_pooled else {}
    )
    engine = create_async_engine(
        URL.create(DRIVER),
        poolclass=BusyPool,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        isolation_level="READ COMMITTED",
        connect_args={"async_creator_fn": Connector(settings, statement_timeout_seconds=timeout), **cache},
        # One statement is a transaction by itself, and under READ COMMITTED several see no common state anyway: BEGIN
        # and COMMIT would be two waits for nothing. A transaction pooler stays with one
        # server from the parsing of an unnamed statement to the end of its execution (ADR 7).
        execution_options={READING: {"isolation_level": "AUTOCOMMIT"}},
        # Parameters hold names and ids of people; they stay out of error texts.
        hide_parameters=True,
    )
    if is_pooled:
        _limit_each_transaction(engine, timeout)
    return engine


async def close_engine(engine: AsyncEngine) -> None:
    """Close every connection of an engine made by `open_engine`, and wait until that has happened."""
    await engine.dispose()
    if engine.sync_engine in _sqlite_connections:
        await _sqlite_connections[engine.sync_engine].close()


def _limit_each_transaction(engine: AsyncEngine, timeout: float) -> None:
    limit = f"'{int(timeout * 1000)}', true"
    statement = (
        f"SELECT set_config('statement_timeout', {limit}), set_config('idle_in_transaction_session_timeout', {limit})"
    )

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A broker that vanishes must not keep its locks. Reads hold none; the driver's own limit ends them.
        if connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql(statement)


def _sqlite_engine(settings: DatabaseSettings, target: SqliteUrl, timeout: float) -> AsyncEngine:
    # One connection: SQLite has one writer anyway, it is faster so, and it keeps clear of the WAL-reset
    # corruption that needs two connections (sqlite.org/wal.html#walresetbug).
    connections = SqliteConnections()
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=target.path),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=settings.pool_timeout_seconds,
        connect_args={"timeout": timeout, "async_creator_fn": connections.open},
        execution_options={READING: {}},
        hide_parameters=True,
    )
    _sqlite_connections[engine.sync_engine] = connections

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # BEGIN IMMEDIATE takes SQLite's write lock at once: a transaction that reads first and then writes would
        # otherwise lose updates or fail with SQLITE_BUSY_SNAPSHOT, which no busy timeout helps against.
        if connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
