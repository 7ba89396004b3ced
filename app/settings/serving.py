"""How the broker serves: HTTP, metrics and logs."""

import ipaddress
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator

from app.settings.reach import Places
from app.settings.section import Environment, ListenAddress, Section, browser_origin, is_loopback


class HttpSettings(Section):
    """Where the broker listens, and the limits on what a client may send."""

    host: ListenAddress = Field(
        default="127.0.0.1", description="Address to listen on; development accepts loopback only."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    allowed_origins: tuple[str, ...] = Field(
        examples=[["https://app.example.com"]],
        default=(),
        description="Origins whose pages may call browser routes (CORS), each in full; no wildcards.",
    )
    allowed_headers: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")], ...] = Field(
        examples=[["x-tenant"]],
        default=(),
        max_length=50,
        description="Further request headers that those pages may send; those of common tracers are allowed anyway.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        examples=[["10.0.0.0/8"]],
        default=(),
        description="Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    )
    max_body_bytes: int = Field(default=64 * 1024, ge=1024, le=1024 * 1024, description="Largest request body.")
    max_webhook_bytes: int = Field(
        default=256 * 1024, ge=1024, le=4 * 1024 * 1024, description="Largest webhook delivery."
    )
    max_header_bytes: int = Field(default=16 * 1024, ge=4096, le=256 * 1024, description="Largest request head.")
    header_timeout_seconds: float = Field(
        default=10, gt=0, le=120, description="Longest wait for a complete request head."
    )
    body_timeout_seconds: float = Field(
        default=20, gt=0, le=300, description="Longest wait for a complete request body."
    )
    write_timeout_seconds: float = Field(
        default=20, gt=0, le=300, description="Longest wait for a client to read its answer."
    )
    drain_seconds: float = Field(
        default=5,
        ge=0,
        le=300,
        description="After SIGTERM: time in which /readyz says that it stops while requests are still served.",
    )
    max_connections: int = Field(default=1000, ge=1, description="Open connections and running requests before 503.")
    keep_alive_seconds: int = Field(
        default=75, ge=1, le=3600, description="Idle time of a kept connection; longer than the load balancer's."
    )
    shutdown_seconds: int = Field(
        default=15, ge=1, le=300, description="Seconds that running requests get after SIGTERM."
    )
    docs: bool = Field(default=False, description="Serve /openapi.json and /docs; always on in development.")

    @field_validator("allowed_origins")
    @classmethod
    def _whole_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(browser_origin(origin) for origin in origins))

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                message = "each entry is an address or a network, such as 10.0.0.0/8"
                raise ValueError(message) from None
        return proxies

    @cached_property
    def proxies(self) -> Places:
        """Whose forwarded addresses are believed."""
        return Places.of(self.trusted_proxies)

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Development listens on loopback only, and a production page is served over https."""
        if environment is Environment.DEVELOPMENT and not is_loopback(self.host):
            yield "HOST", "development listens on loopback only; leave it at 127.0.0.1"
        if environment is Environment.PRODUCTION:
            for origin in self.allowed_origins:
                if not origin.startswith("https://"):
                    yield "ALLOWED_ORIGINS", "production pages are served over https://"


class MetricsSettings(Section):
    """The Prometheus listener; its own port by default, so that it is never public by accident."""

    host: ListenAddress = Field(default="127.0.0.1", description="Address the metrics listener binds to.")
    port: int | None = Field(
        default=9464, ge=0, le=65535, description="Port of the metrics listener; null turns it off."
    )


class AuditSettings(Section):
    """The audit trail: what somebody did, or was refused, of which no other row tells."""

    retention_days: int = Field(
        default=400, ge=1, le=36_500, description="How long refusals, user tokens and pins stay in the audit trail."
    )


class LogSettings(Section):
    """What is logged: lines on standard output."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level logged."
    )
    format: Literal["json", "console"] = Field(
        default="json", description="json for machines, console for people (`broker serve --log-format console`)."
    )
