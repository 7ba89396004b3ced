"""The engine of either database, and what differs between them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.settings import DatabaseSettings


def engine_url(url: str) -> URL:
    """Turn a database URL as people write it into one that names our async driver.

    Raises sqlalchemy.exc.ArgumentError for text that is no URL.
    """
    parsed = make_url(url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgres": "postgresql+asyncpg", "postgresql": "postgresql+asyncpg"}
    return parsed.set(drivername=driver.get(parsed.drivername, parsed.drivername))


def open_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Create the engine for the configured URL; it connects at first use."""
    url = engine_url(settings.url.get_secret_value())
    timeout = settings.statement_timeout_seconds
    if url.drivername.startswith("sqlite"):
        # One connection: SQLite has one writer anyway, it is faster so, and it keeps clear of the WAL-reset
        # corruption that needs two connections (sqlite.org/wal.html#walresetbug).
        engine = create_async_engine(
            url,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=settings.pool_timeout_seconds,
            connect_args={"timeout": timeout},
            hide_parameters=True,
        )
        _prepare_sqlite(engine)
        return engine
    return create_async_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": settings.pool_timeout_seconds,
            "command_timeout": timeout,
            "server_settings": {
                "statement_timeout": str(int(timeout * 1000)),
                "idle_in_transaction_session_timeout": str(int(timeout * 1000)),
                "application_name": "connect-broker",
                "timezone": "UTC",
            },
        },
        # Parameters hold names and ids of people; they stay out of error texts.
        hide_parameters=True,
    )


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # The driver's own transaction handling begins too late and DEFERRED; we say BEGIN ourselves, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")
