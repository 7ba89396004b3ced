"""Whom the broker trusts when it connects, and through which proxy it does."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_core import Url

from app.settings.database_tls import authorities_mistake
from app.settings.reach import Places
from app.settings.section import Environment, Section


class TlsSettings(Section):
    """Certificate authorities of one's own, and the way out of one's own network."""

    ca_file: Path | None = Field(
        examples=["/etc/ssl/certs/own.pem"],
        default=None,
        description=(
            "Certificate authorities (PEM) to trust instead of the system's, for StackOne, issuers, push, Redis and"
            " PostgreSQL; SSL_CERT_FILE does the same for all but PostgreSQL."
        ),
    )
    proxy: SecretStr | None = Field(
        examples=["http://user:PASSWORD@proxy.example.com:3128"],
        default=None,
        description="HTTP proxy for StackOne, issuers and push: http://[user:password@]host:port. None is taken from"
        " HTTPS_PROXY.",
    )
    no_proxy: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.0/8", "::1"),
        max_length=100,
        description="Hosts, networks and .domains that are reached without the proxy.",
    )

    @field_validator("proxy")
    @classmethod
    def _is_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        message = "must be http://host:port or https://host:port, with user:password@ before the host if it wants them"
        try:
            url = Url(proxy.get_secret_value()) if proxy else None
        except ValueError:
            raise ValueError(message) from None
        if url and (
            url.scheme not in {"http", "https"}
            or url.path not in {None, "/"}
            or url.query
            or url.fragment
            or not url.port
        ):
            raise ValueError(message)
        return proxy

    @field_validator("no_proxy")
    @classmethod
    def _understood(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        Places.of(entries)
        return entries

    @cached_property
    def around_proxy(self) -> Places:
        """What is reached without the proxy."""
        return Places.of(self.no_proxy)

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Yield a file that cannot be used."""
        del environment
        if self.ca_file is not None and (reason := authorities_mistake(self.ca_file)):
            yield "CA_FILE", reason
