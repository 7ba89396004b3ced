"""The engine, visible transactions, and what differs between SQLite and PostgreSQL."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.errors import Unavailable
from app.settings import DatabaseSettings

logger = structlog.get_logger(__name__)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# PostgreSQL SQLSTATE classes that mean "not now": connection, resources, operator intervention, lock not available.
_OUTAGE_CLASSES = ("08", "53", "57", "55", "40")
_OUTAGE_RETRY_AFTER_SECONDS = 2.0

# True inside `transaction()` and `reading()`. Upstream calls must never be made there (they would hold a connection
# and row locks for as long as a neighbour likes); tests ask this at the moment a call arrives upstream.
transaction_open: ContextVar[bool] = ContextVar("transaction_open", default=False)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    comment="Numbers that only grow: read tickets and feed positions.",
)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime on both databases; SQLite has no time zones and would hand back naive values."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes: a guess about their zone would reorder events."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = "datetimes must carry a time zone"
            raise ValueError(message)
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give SQLite's values back the zone they were stored in."""
        del dialect
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


# JSON that PostgreSQL can index and compare.
Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def engine_url(url: str) -> URL:
    """Turn a database URL as people write it into one that names our async driver.

    Raises sqlalchemy.exc.ArgumentError for text that is no URL.
    """
    parsed = make_url(url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgres": "postgresql+asyncpg", "postgresql": "postgresql+asyncpg"}
    return parsed.set(drivername=driver.get(parsed.drivername, parsed.drivername))


class Database:
    """One engine. Work happens in blocks that can be seen: `transaction()` to write, `reading()` to read."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take over an engine made by `open_engine`."""
        self.engine = engine
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
                yield connection
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


def upsert(
    connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]
) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT that can say ON CONFLICT; both dialects spell it the same way."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return insert(table).values(rows)


async def counter_value(connection: AsyncConnection, counter: str) -> int:
    """Return the value of a counter, 0 for one that was never raised."""
    query = sa.select(counters.c.value).where(counters.c.name == counter)
    return int((await connection.execute(query)).scalar_one_or_none() or 0)


async def raise_counter(connection: AsyncConnection, counter: str, to: int) -> None:
    """Raise a counter to a value, unless it is there already."""
    statement = upsert(connection, counters, {"name": counter, "value": to})
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[counters.c.name], set_={"value": to}, where=counters.c.value < to
        )
    )


async def advance(connection: AsyncConnection, counter: str, by: int = 1) -> int:
    """Raise a counter and return its new value, in the caller's transaction.

    The counter's row stays locked until that transaction ends: whoever gets a higher number commits later. This is
    what makes the change feed gap-free, and why it is the last row a transaction touches.
    """
    statement = upsert(connection, counters, {"name": counter, "value": by})
    result = await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[counters.c.name], set_={"value": counters.c.value + by}
        ).returning(counters.c.value)
    )
    return int(result.scalar_one())
