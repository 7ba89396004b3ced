"""Opens connections to PostgreSQL, as the settings say now."""

from typing import Any, Final

import structlog
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from app.settings import DatabaseSettings, reload_database_settings
from app.settings.database_tls import tls_context
from app.settings.database_url import Pooler, PostgresqlUrl, SslMode

logger = structlog.get_logger(__name__)

_APPLICATION_NAME: Final = "connect-broker"
POOLED_DRIVER: Final = "postgresql+asyncpg_pooled"


class Connector:
    """Opens connections. A database that refuses the credentials has the secrets folder read again."""

    def __init__(self, settings: DatabaseSettings, *, statement_timeout_seconds: float) -> None:
        """`statement_timeout_seconds` may be longer than that of the settings."""
        self._settings = settings
        self._statement_timeout_seconds = statement_timeout_seconds

    async def __call__(self) -> Any:
        """Open one. Raises what the driver raises; `failures` names it."""
        # An extra of the package, which a broker on SQLite does without.
        from asyncpg.exceptions import InvalidAuthorizationSpecificationError, ProtocolViolationError  # noqa: PLC0415

        try:
            return await self._open(self._settings)
        except (InvalidAuthorizationSpecificationError, ProtocolViolationError):
            # The latter is what PgBouncer says of a wrong password.
            newer = reload_database_settings()
            if newer is None or newer.url == self._settings.url or not isinstance(newer.target, PostgresqlUrl):
                raise
            connection = await self._open(newer)
        logger.info("database_credentials_reread")
        self._settings = newer
        return connection

    async def _open(self, settings: DatabaseSettings) -> Any:
        import asyncpg  # noqa: PLC0415

        url = settings.target
        if not isinstance(url, PostgresqlUrl):  # pragma: no cover  open_engine has looked
            raise TypeError
        pooler = settings.pooled_by
        limits = self._limits() if pooler is not Pooler.TRANSACTION else {}
        timeout = (url.connect_timeout or settings.pool_timeout_seconds) * (
            len(url.hosts) if url.connect_timeout is not None else 1
        )
        connection = await asyncpg.connect(
            host=[host for host, _ in url.hosts],
            port=[port for _, port in url.hosts],
            user=url.user,
            password=url.password,
            database=url.database,
            ssl=_tls(url, settings),
            direct_tls=url.is_tls_direct,
            target_session_attrs=url.target_session_attrs,
            timeout=timeout,
            command_timeout=self._statement_timeout_seconds,
            # Behind a transaction pooler the next statement may go to another server, where nothing is prepared.
            statement_cache_size=0 if pooler is Pooler.TRANSACTION else 100,
            server_settings={
                "application_name": url.application_name or _APPLICATION_NAME,
                "timezone": "UTC",
                # Of what is said when connecting, PgBouncer takes these two and refuses the rest.
                **(limits if pooler is Pooler.NONE else {}),
                **({"options": url.options} if url.options else {}),
            },
        )
        if pooler is Pooler.SESSION:
            await connection.execute("; ".join(f"SET {name} = {value}" for name, value in limits.items()))
        return connection

    def _limits(self) -> dict[str, str]:
        milliseconds = str(int(self._statement_timeout_seconds * 1000))
        return {"statement_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds}


def _tls(url: PostgresqlUrl, settings: DatabaseSettings) -> Any:
    """Return what the driver takes: a context, no encryption, or a mode that it tries both ways by itself."""
    if url.sslmode is SslMode.DISABLE:
        return False
    if url.sslmode is not None and url.sslmode.encrypts:
        return tls_context(url, settings.ca_file)
    return (url.sslmode or SslMode.PREFER).value


class PooledDialect(PGDialect_asyncpg):
    """PostgreSQL behind a pooler that changes servers between transactions: nothing may span two of them.

    SQLAlchemy calls these for each new connection, outside any transaction; the driver then prepares and executes in
    two messages, between which the pooler may go to another server.
    """

    driver = "asyncpg_pooled"
    supports_statement_cache = True

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """Look the type up in one transaction."""
        async with conn.driver_connection.transaction():
            await super().setup_asyncpg_json_codec(conn)  # type: ignore[no-untyped-call]

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """Look the type up in one transaction."""
        async with conn.driver_connection.transaction():
            await super().setup_asyncpg_jsonb_codec(conn)  # type: ignore[no-untyped-call]


registry.register("postgresql.asyncpg_pooled", __name__, "PooledDialect")
