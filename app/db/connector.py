"""Opens connections to PostgreSQL, as the settings say now."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, Final

import structlog
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from app.settings import DatabaseSettings, reload_database_settings
from app.settings.database_tls import tls_context
from app.settings.database_url import Pooler, PostgresqlUrl, SslMode

logger = structlog.get_logger(__name__)

_GRACE_SECONDS: Final = 1.0
_APPLICATION_NAME: Final = "connect-broker"
DRIVER: Final = "postgresql+asyncpg_prepared"
# Every type of array that a statement of ours has as a parameter, but text, which the driver knows.
_ARRAYS: Final = "SELECT NULL::bytea[], NULL::timestamptz[]"


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
        timeout = (url.connect_timeout or settings.pool_timeout_seconds) * (
            len(url.hosts) if url.connect_timeout is not None else 1
        )
        connection = await _unless_cancelled(
            asyncpg.connect(
                host=[host for host, _ in url.hosts],
                port=[port for _, port in url.hosts],
                user=url.user,
                password=url.password,
                database=url.database,
                ssl=_tls(url, settings),
                direct_tls=url.is_tls_direct,
                target_session_attrs=url.target_session_attrs,
                timeout=timeout,
                # The server's own limit comes first where it has one, since it says what ended; this one is for
                # a server that hangs.
                command_timeout=self._statement_timeout_seconds
                + (_GRACE_SECONDS if pooler is not Pooler.TRANSACTION else 0),
                # Behind a transaction pooler the next statement may go to another server, where nothing is prepared.
                statement_cache_size=0 if pooler is Pooler.TRANSACTION else 100,
                server_settings={
                    "application_name": url.application_name or _APPLICATION_NAME,
                    "timezone": "UTC",
                    # Of what is said when connecting, PgBouncer takes these two and refuses the rest.
                    **(self._limits() if pooler is Pooler.NONE else {}),
                    **({"options": url.options} if url.options else {}),
                },
            )
        )
        try:
            await self._prepare(connection, pooler)
        except BaseException as error:
            was_closed = connection.is_closed()
            # Cancelled here, nobody else knows of it: it would stay open, behind a pooler perhaps within a transaction.
            connection.terminate()
            if was_closed and isinstance(error, asyncpg.InterfaceError):
                # The driver's own words, without a code, for a transaction whose connection was lost.
                raise ConnectionResetError from error
            raise
        return connection

    async def _prepare(self, connection: Any, pooler: Pooler) -> None:
        if pooler is Pooler.SESSION:
            await connection.execute("; ".join(f"SET {name} = {value}" for name, value in self._limits().items()))
        # The driver looks the types up in several messages; a transaction keeps them with one server.
        async with connection.transaction():
            await connection.set_type_codec(
                "json", schema="pg_catalog", format="binary", encoder=str.encode, decoder=_json_of
            )
            await connection.set_type_codec(
                "jsonb", schema="pg_catalog", format="binary", encoder=_jsonb, decoder=_json_of_jsonb
            )
            if pooler is Pooler.TRANSACTION:
                # The driver looks up what an array holds when it first meets one, with a query that PostgreSQL would
                # compile for seconds. It switches that off before, which is for nothing where the pooler then asks
                # another server; here it cannot. After a failover all connections are new at once.
                await connection.fetch(_ARRAYS)

    def _limits(self) -> dict[str, str]:
        milliseconds = str(int(self._statement_timeout_seconds * 1000))
        return {"statement_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds}


async def _unless_cancelled(attempt: Coroutine[Any, Any, Any]) -> Any:
    """Carry out an attempt to connect.

    One that is cancelled while it connects leaves its socket to the garbage collector, and an error that nobody asks
    for. So whoever is cancelled gives it a moment to come to its end.
    """
    opening = asyncio.ensure_future(attempt)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait({opening}, timeout=_GRACE_SECONDS)
        if not opening.done():
            opening.cancel()
        elif not opening.cancelled() and opening.exception() is None:
            opening.result().terminate()
        raise


def _tls(url: PostgresqlUrl, settings: DatabaseSettings) -> Any:
    """Return what the driver takes: a context, no encryption, or a mode that it tries both ways by itself."""
    if url.sslmode is SslMode.DISABLE:
        return False
    if url.sslmode is not None and url.sslmode.encrypts:
        return tls_context(url, settings.ca_file)
    return (url.sslmode or SslMode.PREFER).value


def _json_of(data: bytes) -> Any:
    return json.loads(data)


# The first byte of JSONB on the wire is its version.
def _jsonb(text: str) -> bytes:
    return b"\x01" + text.encode()


def _json_of_jsonb(data: bytes) -> Any:
    return json.loads(data[1:])


class PreparedDialect(PGDialect_asyncpg):
    """SQLAlchemy's dialect, for connections that the connector has prepared.

    Its own preparation has no place where a connection is given up when it is cancelled, and no transaction around it.
    """

    driver = "asyncpg_prepared"
    supports_statement_cache = True

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """Leave it as the connector made it."""

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """Leave it as the connector made it."""


registry.register("postgresql.asyncpg_prepared", __name__, "PreparedDialect")
