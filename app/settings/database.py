"""The store."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from app.settings.database_tls import CertificateMistake, tls_context
from app.settings.database_url import (
    Pooler,
    PostgresqlUrl,
    SqliteUrl,
    SslMode,
    UrlMistake,
    parse_database_url,
)
from app.settings.section import Environment, Section

_NO_TLS = (
    "says nothing that enforces TLS to a PostgreSQL on another machine; add sslmode=verify-full (or require), or"
    " sslmode=disable on a network that nobody else can listen to"
)


class DatabaseSettings(Section):
    """The store: SQLite for one process, PostgreSQL for many."""

    url: SecretStr = Field(
        examples=["postgresql://broker:PASSWORD@db.example.com/broker?sslmode=verify-full"],
        description=(
            "sqlite:///path or postgresql://user:password@host/name, with libpq's words (sslmode and others) after a"
            " question mark."
        ),
    )
    pooler: Pooler | None = Field(
        examples=["transaction"],
        default=None,
        description=(
            "How a connection pooler such as PgBouncer before PostgreSQL hands out connections: none, session or"
            " transaction. Without it the URL decides: pgbouncer=true means transaction."
        ),
    )
    ca_file: Path | None = Field(
        examples=["/etc/ssl/certs/database.pem"],
        default=None,
        description="Certificate authorities (PEM) to trust for PostgreSQL; sslrootcert in the URL wins.",
    )
    pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections kept to PostgreSQL; SQLite always uses one."
    )
    pool_overflow: int = Field(
        default=10,
        ge=0,
        le=200,
        description="Further connections under load; each stays open until it was not needed for half a minute.",
    )
    pool_timeout_seconds: float = Field(default=5, gt=0, le=60, description="Longest wait for a connection before 503.")
    statement_timeout_seconds: float = Field(default=10, gt=0, le=300, description="Longest single statement.")

    @field_validator("url")
    @classmethod
    def _is_understood(cls, url: SecretStr) -> SecretStr:
        try:
            parse_database_url(url.get_secret_value())
        except UrlMistake as error:
            raise ValueError(str(error)) from None
        return url

    @cached_property
    def target(self) -> PostgresqlUrl | SqliteUrl:
        """What the URL names."""
        return parse_database_url(self.url.get_secret_value())

    @property
    def pooled_by(self) -> Pooler:
        """What stands before PostgreSQL."""
        if self.pooler is not None:
            return self.pooler
        return (self.target.pooler if isinstance(self.target, PostgresqlUrl) else None) or Pooler.NONE

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Yield what must not be run with: passwords in the clear, and files that cannot be used."""
        if isinstance(self.target, SqliteUrl):
            if not Path(self.target.path).absolute().parent.is_dir():
                yield "URL", "the folder of the SQLite file does not exist; create it, or name another"
            return
        url = self.target
        is_silent = url.sslmode is None or not url.sslmode.encrypts
        if (
            environment is Environment.PRODUCTION
            and not url.is_local
            and is_silent
            and url.sslmode is not SslMode.DISABLE
        ):
            yield (
                "URL",
                _NO_TLS,
            )
        if url.is_tls_direct and is_silent:
            yield "URL", "sslnegotiation: direct needs sslmode=require, verify-ca or verify-full"
        if self.pooled_by is not Pooler.NONE and "-c" in (url.options or ""):
            yield "URL", "options: a pooler does not pass them on; use ALTER ROLE ... SET on the server instead"
        if self.pooled_by is Pooler.TRANSACTION and url.target_session_attrs != "any":
            yield "URL", "target_session_attrs: a transaction pooler hides its servers; leave it out"
        try:
            tls_context(url, self.ca_file)
        except CertificateMistake as error:
            word, _, reason = str(error).partition(": ")
            yield ("CA_FILE", reason) if word == "CA_FILE" else ("URL", str(error))
