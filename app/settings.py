"""Every setting of the broker, and the only reader of the environment (prefix BROKER_, nested by __).

`load_settings` reports every mistake at once: each section is validated by itself, then asked what in it would be
unsafe in this environment, so that an operator mends one list instead of restarting once per mistake.
"""

import base64
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

PREFIX = "BROKER_"
SECRETS_DIR = "BROKER_SECRETS_DIR"
Environment = Literal["production", "development"]

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
EC_ALGORITHMS = frozenset({"ES256", "ES384", "ES512"})
EDWARDS_ALGORITHMS = frozenset({"EdDSA", "Ed25519"})
SECRET_ALGORITHMS = frozenset({"HS256", "HS384", "HS512"})
ALGORITHM_FAMILIES = (RSA_ALGORITHMS, EC_ALGORITHMS, EDWARDS_ALGORITHMS, SECRET_ALGORITHMS)

# StackOne's keys name their region ("v1.eu1.<opaque>"); a development broker must never hold one.
_REAL_KEY = re.compile(r"^v\d+\.[a-z]{2}\d*\.")
# Everything that broker-demo generates begins like this, so that production can refuse it.
_DEMO_SECRET = "demo-"  # noqa: S105  a prefix, not a secret
_MINIMUM_SECRET_LENGTH = 16
_MINIMUM_HS256_SECRET_BYTES = 32  # RFC 7518 section 3.2
_MINIMUM_PUSH_SECRET_BYTES = 24  # Standard Webhooks, "signature scheme"


class SettingsError(Exception):
    """The settings cannot be used; `mistakes` has a line for each reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        """Keep all mistakes; their text never holds a value."""
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _url_mistake(url: str, environment: Environment) -> str | None:
    """Say what is wrong with a neighbour's URL: production speaks https only, development may use loopback http."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        return "must not carry a user name or password"
    if parts.query or parts.fragment:
        return "must not carry a query or fragment"
    if parts.scheme == "https" and parts.hostname:
        return None
    if parts.scheme == "http" and environment == "development":
        return None if _is_loopback(parts.hostname) else "plain http is accepted only for a loopback address"
    return "must be an https:// URL (plain http is accepted only with BROKER_ENVIRONMENT=development, on loopback)"


def _secret_mistake(secret: SecretStr, environment: Environment) -> str | None:
    value = secret.get_secret_value()
    if len(value) < _MINIMUM_SECRET_LENGTH:
        return f"must have at least {_MINIMUM_SECRET_LENGTH} characters"
    if environment == "production" and value.startswith(_DEMO_SECRET):
        return "is a demo secret; production needs one of its own"
    return None


def _without_trailing_slash(value: object) -> object:
    return value.rstrip("/") if isinstance(value, str) else value


UrlText = Annotated[str, Field(max_length=2048), BeforeValidator(_without_trailing_slash)]


class Section(BaseModel):
    """A group of settings; frozen, and strict about names so that a typo is a mistake instead of a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Yield (setting below this section, reason) for each value that this environment must not run with."""
        del environment
        return iter(())


class HttpSettings(Section):
    """Where the broker listens and what it takes from the network."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; development accepts loopback only.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Origins whose pages may call the browser door (CORS), each spelled in full; no wildcards.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed."
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
    max_connections: int = Field(default=1000, ge=1, description="Open connections and running requests before 503.")
    keep_alive_seconds: int = Field(
        default=75, ge=1, le=3600, description="Idle time of a kept connection; longer than the load balancer's."
    )
    shutdown_seconds: int = Field(default=15, ge=1, le=300, description="Time running requests get after SIGTERM.")
    docs: bool = Field(default=False, description="Serve /openapi.json and /docs; always on in development.")

    @field_validator("allowed_origins")
    @classmethod
    def _whole_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            whole = f"{parts.scheme}://{parts.netloc}"
            if parts.scheme not in {"http", "https"} or not parts.hostname or origin != whole or "*" in origin:
                message = "each entry is an origin such as https://app.example.com: scheme, host, port, nothing else"
                raise ValueError(message)
        return origins

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

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Development listens on loopback only, and a production page is served over https."""
        if environment == "development" and not _is_loopback(self.host):
            yield "HOST", "development listens on loopback only; leave it at 127.0.0.1"
        if environment == "production":
            for origin in self.allowed_origins:
                if not origin.startswith("https://"):
                    yield "ALLOWED_ORIGINS", "production pages are served over https://"


class MetricsSettings(Section):
    """The Prometheus listener; its own port by default, so that it is never public by accident."""

    host: str = Field(default="127.0.0.1", description="Address the metrics listener binds to.")
    port: int | None = Field(
        default=9464, ge=0, le=65535, description="Port of the metrics listener; null turns it off."
    )


class LogSettings(Section):
    """What is logged: JSON lines on standard output."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level logged."
    )


class StackOneSettings(Section):
    """The one upstream."""

    api_key: SecretStr = Field(description="StackOne API key with Platform API read and write, and nothing else.")
    base_url: UrlText = Field(default="https://api.stackone.com", description="StackOne's API.")
    webhook_secrets: tuple[SecretStr, ...] = Field(
        min_length=1, max_length=8, description="Signing secrets of the webhook; several while one is being rotated."
    )
    project_id: str | None = Field(
        default=None,
        max_length=255,
        description="Project whose events are accepted; others are refused when it is set.",
    )
    timeout_seconds: float = Field(default=10, gt=0, le=60, description="Deadline of one call, connection included.")
    total_timeout_seconds: float = Field(default=20, gt=0, le=120, description="Deadline of a call with its retries.")
    max_attempts: int = Field(default=3, ge=1, le=6, description="Tries of one call that may be repeated.")
    max_connections: int = Field(default=50, ge=1, le=1000, description="Connections to StackOne at once.")
    max_answer_bytes: int = Field(
        default=8 * 1024 * 1024, ge=64 * 1024, description="Largest answer that is read; a listing page must fit."
    )
    requests_per_minute: int = Field(
        default=900, ge=10, le=100_000, description="Calls to StackOne over all uses; their limit is 1000."
    )
    breaker_failures: int = Field(
        default=5, ge=1, le=1000, description="Failures in a row that open the circuit breaker."
    )
    breaker_seconds: float = Field(
        default=10, gt=0, le=600, description="How long an open circuit breaker refuses calls."
    )

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Keys are long, real in production, never real in development; the wire is encrypted."""
        if reason := _url_mistake(self.base_url, environment):
            yield "BASE_URL", reason
        if reason := _secret_mistake(self.api_key, environment):
            yield "API_KEY", reason
        if environment == "development" and _REAL_KEY.match(self.api_key.get_secret_value()):
            yield "API_KEY", "looks like a real StackOne key; development refuses those"
        for secret in self.webhook_secrets:
            if reason := _secret_mistake(secret, environment):
                yield "WEBHOOK_SECRETS", f"an entry {reason}"


class DatabaseSettings(Section):
    """The store: SQLite for one process, PostgreSQL for many."""

    url: SecretStr = Field(description="sqlite:///path or postgresql://user:password@host/name.")
    pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections kept to PostgreSQL; SQLite always uses one."
    )
    pool_overflow: int = Field(default=10, ge=0, le=200, description="Further connections under load.")
    pool_timeout_seconds: float = Field(default=5, gt=0, le=60, description="Longest wait for a connection before 503.")
    statement_timeout_seconds: float = Field(default=10, gt=0, le=300, description="Longest single statement.")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: SecretStr) -> SecretStr:
        scheme = url.get_secret_value().partition("://")[0]
        if scheme not in {"sqlite", "sqlite+aiosqlite", "postgresql", "postgres", "postgresql+asyncpg"}:
            message = "must begin with sqlite:/// or postgresql://"
            raise ValueError(message)
        return url


class ClaimPaths(Section):
    """Which claims say who the caller is.

    A path is a claim's name, or names joined by dots for a nested one; a name that itself has dots or slashes, such
    as Auth0's "https://example.com/org", is tried whole first, and a list of names spells a path without ambiguity.
    """

    owner_id: str | tuple[str, ...] = Field(description="Claim with the owner id (the customer's organization).")
    owner_name: str | tuple[str, ...] | None = Field(
        default=None, description="Claim with the owner's display name; the owner id serves where it is absent."
    )
    username: str | tuple[str, ...] | None = Field(default="sub", description="Claim with the person who links.")


class IssuerSettings(Section):
    """One trusted issuer of JWTs, with one family of algorithms."""

    issuer: str = Field(min_length=1, max_length=2048, description="Exact value of the `iss` claim.")
    audiences: tuple[str, ...] = Field(min_length=1, description="Accepted values of the `aud` claim.")
    algorithms: tuple[str, ...] = Field(
        default=("RS256",), min_length=1, description="Accepted `alg` values, one family."
    )
    jwks_uri: UrlText | None = Field(default=None, description="Where the keys are, if not found by OIDC discovery.")
    jwks_file: Path | None = Field(
        default=None, description="A file with the keys (JWKS), for issuers without an endpoint."
    )
    secret: SecretStr | None = Field(default=None, description="Shared secret for HS256 tokens of a home-made login.")
    token_types: tuple[str, ...] = Field(
        default=(), description="Required `typ` header, such as at+jwt; empty accepts any."
    )
    leeway_seconds: float = Field(default=30, ge=0, le=60, description="Clock difference that is forgiven.")
    max_lifetime_seconds: float = Field(default=86_400, gt=0, description="Longest exp - iat that is accepted.")
    claims: ClaimPaths = Field(description="Which claims say who the caller is.")
    required_claims: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="Claims that must have this value (or one of these)."
    )

    @model_validator(mode="after")
    def _one_source_and_family(self) -> Self:
        families = [family for family in ALGORITHM_FAMILIES if family & set(self.algorithms)]
        if len(families) != 1 or not set(self.algorithms) <= families[0]:
            message = "algorithms must be known ones of a single family (RS*/PS*, ES*, EdDSA or HS*)"
            raise ValueError(message)
        if (families[0] is SECRET_ALGORITHMS) != (self.secret is not None):
            message = "a secret goes with HS* algorithms, and only with them"
            raise ValueError(message)
        if sum(source is not None for source in (self.jwks_uri, self.jwks_file, self.secret)) > 1:
            message = "give one of jwks_uri, jwks_file and secret, or none of them for OIDC discovery"
            raise ValueError(message)
        return self

    def mistakes(self, environment: Environment) -> Iterator[str]:
        """Yield what this environment must not accept of this issuer."""
        if self.secret is not None:
            if len(self.secret.get_secret_value().encode()) < _MINIMUM_HS256_SECRET_BYTES:
                yield f"secret must have at least {_MINIMUM_HS256_SECRET_BYTES} bytes"
            if reason := _secret_mistake(self.secret, environment):
                yield f"secret {reason}"
        elif self.jwks_file is not None:
            if not self.jwks_file.is_file():
                yield "jwks_file does not exist"
        elif reason := _url_mistake(self.jwks_uri or self.issuer, environment):
            yield f"{'jwks_uri' if self.jwks_uri else 'issuer'} {reason}"


class MachineIssuerSettings(IssuerSettings):
    """An issuer of machine tokens (OAuth client credentials) for the service door."""

    claims: ClaimPaths = Field(
        default=ClaimPaths(owner_id="owner_ids", username="sub"), description="Unused but for the name in logs."
    )
    scope_claim: str = Field(default="scope", description="Claim with the scopes: a list, or text parted by spaces.")
    owners_claim: str | None = Field(
        default=None, description="Claim with a list of owner ids the machine is limited to."
    )


class CookieSettings(Section):
    """The browser door's second way in: the same JWT in a cookie, defended against CSRF."""

    name: str = Field(
        default="__Host-connect-broker", pattern=r"^__Host-[A-Za-z0-9_-]{1,64}$", description="Name of the cookie."
    )
    csrf_header: str = Field(
        default="x-connect-broker",
        pattern=r"^[a-z][a-z0-9-]{2,63}$",
        description="Header that every cookie request must carry.",
    )


class IdentitySettings(Section):
    """Whose tokens are believed."""

    issuers: tuple[IssuerSettings, ...] = Field(min_length=1, description="Issuers of end users' tokens (JSON list).")
    machine_issuers: tuple[MachineIssuerSettings, ...] = Field(
        default=(), description="Issuers of machine tokens for the service door (JSON list)."
    )
    cookie: CookieSettings | None = Field(
        default=None, description="Accept the JWT in a cookie too; null ignores cookies."
    )
    jwks_cooldown_seconds: float = Field(
        default=30, ge=1, le=3600, description="Shortest time between two key fetches of one issuer."
    )
    jwks_fresh_seconds: float = Field(
        default=600, ge=10, le=86_400, description="Age after which keys are fetched again."
    )
    jwks_stale_seconds: float = Field(
        default=86_400, ge=60, le=604_800, description="Age up to which keys still count while the issuer is away."
    )
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="Deadline of a key fetch.")

    @model_validator(mode="after")
    def _each_issuer_once(self) -> Self:
        for listed in (self.issuers, self.machine_issuers):
            names = [issuer.issuer for issuer in listed]
            if len(set(names)) != len(names):
                message = "each issuer may be listed once in each list"
                raise ValueError(message)
        for machine in self.machine_issuers:
            for user in self.issuers:
                shared = machine.issuer == user.issuer and set(machine.audiences) & set(user.audiences)
                if shared and not machine.required_claims:
                    message = (
                        "an issuer of both users' and machines' tokens needs its own audience for machines, or"
                        " required_claims that only machine tokens have: a user's token must not open the service door"
                    )
                    raise ValueError(message)
        return self

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Keys come over https, secrets are long."""
        for name, issuers in (("ISSUERS", self.issuers), ("MACHINE_ISSUERS", self.machine_issuers)):
            for number, issuer in enumerate(issuers):
                for mistake in issuer.mistakes(environment):
                    yield f"{name}[{number}]", mistake


class ServiceKeySettings(Section):
    """Service keys are stored as HMAC-SHA-256 under the pepper."""

    pepper: SecretStr = Field(description="Key of the keyed hash; a copy of the database alone then proves nothing.")
    previous_peppers: tuple[SecretStr, ...] = Field(
        default=(), max_length=4, description="Peppers that still count while keys are being replaced."
    )

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """The pepper is long and production's own."""
        if reason := _secret_mistake(self.pepper, environment):
            yield "PEPPER", reason


class SessionSettings(Section):
    """Connect sessions: how long they live and how many may be open."""

    expires_in_seconds: int = Field(default=1800, ge=60, le=86_400, description="Life of a browser's session token.")
    auth_link_expires_in_seconds: int = Field(
        default=432_000, ge=60, le=2_592_000, description="Life of an auth link where the request names none."
    )
    retention_days: int = Field(default=90, ge=1, le=3650, description="How long ended sessions stay in the ledger.")


class SyncSettings(Section):
    """How the store is kept equal to StackOne."""

    enabled: bool = Field(default=True, description="Run the background loops in this process.")
    poll_seconds: float = Field(default=1, gt=0, le=60, description="How often due accounts are looked for.")
    batch: int = Field(default=20, ge=1, le=500, description="Accounts claimed at once.")
    concurrency: int = Field(default=5, ge=1, le=50, description="Accounts read at once by one process.")
    claim_seconds: float = Field(
        default=60, ge=5, le=600, description="How long a claim holds before another may take the account."
    )
    backoff_seconds: float = Field(default=2, gt=0, le=60, description="First wait after a failed read; doubles.")
    max_backoff_seconds: float = Field(default=900, ge=1, le=86_400, description="Longest wait between failed reads.")
    hint_retention_days: int = Field(
        default=30, ge=1, le=3650, description="How long received events are kept; changes are kept for good."
    )
    sweep_interval_seconds: float = Field(
        default=3600, ge=0, le=604_800, description="Time between sweeps; 0 turns the timer off."
    )
    sweep_removal_floor: int = Field(
        default=5, ge=0, le=10_000, description="Missing accounts that never trip the brake, whatever their share."
    )
    sweep_page_size: int = Field(default=100, ge=1, le=500, description="Accounts asked for in one listing page.")
    sweep_max_removal_percent: float = Field(
        default=10, ge=0, le=100, description="Share of known accounts a sweep may remove before its brake stops it."
    )


class PushDestination(Section):
    """One of your services that is told of every change."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Its name, for commands and metrics.")
    url: UrlText = Field(description="Where changes are posted; https, and at a public address.")
    secret: SecretStr = Field(description="Signing secret (Standard Webhooks): whsec_ and base64.")

    def mistakes(self, environment: Environment) -> Iterator[str]:
        """Yield what this environment must not accept of this destination."""
        if reason := _url_mistake(self.url, environment):
            yield f"url {reason}"
        encoded = self.secret.get_secret_value()
        try:
            key = base64.b64decode(encoded.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not encoded.startswith("whsec_") or len(key) < _MINIMUM_PUSH_SECRET_BYTES:
            yield f"secret must be whsec_ and base64 of at least {_MINIMUM_PUSH_SECRET_BYTES} random bytes"


class PushSettings(Section):
    """Who is told of changes by signed webhooks."""

    destinations: tuple[PushDestination, ...] = Field(
        default=(), max_length=20, description='Who is told (JSON list of {"name", "url", "secret"}); none by default.'
    )
    timeout_seconds: float = Field(default=10, gt=0, le=60, description="Longest wait for a destination's answer.")
    max_attempts: int = Field(
        default=12, ge=1, le=50, description="Tries of one delivery before it is set aside as dead."
    )
    backoff_seconds: float = Field(default=5, gt=0, le=600, description="First wait after a failed delivery; doubles.")
    max_backoff_seconds: float = Field(
        default=3600, ge=1, le=86_400, description="Longest wait between tries of a delivery."
    )
    batch: int = Field(default=50, ge=1, le=500, description="Deliveries under way at once.")

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            message = "each destination needs a name of its own"
            raise ValueError(message)
        return self

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Destinations are reached over https, and secrets are long."""
        for number, destination in enumerate(self.destinations):
            for mistake in destination.mistakes(environment):
                yield f"DESTINATIONS[{number}]", mistake


class LimitSettings(Section):
    """How often anyone may call. A rate is a number and a time, such as 30/minute, 5/second or 100/2hours."""

    storage_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="memory://, redis://host:port or rediss://host:port; limits are shared only through Redis.",
    )
    storage_timeout_seconds: float = Field(
        default=0.5, gt=0, le=10, description="Longest wait for Redis before the process counts by itself."
    )
    mint_per_user: str = Field(default="60/minute", description="Sessions one user may open.")
    mint_per_owner: str = Field(
        default="300/minute", description="Sessions that may be opened for one owner, by whichever door."
    )
    requests_per_user: str = Field(default="300/minute", description="Requests one user may make.")
    requests_per_owner: str = Field(
        default="3000/minute", description="Requests all users of one owner may make at the browser door."
    )
    requests_per_service: str = Field(default="3000/minute", description="Requests one service credential may make.")
    unauthenticated_per_address: str = Field(
        default="300/minute", description="Refused credentials from one address before 429."
    )
    live_sessions_per_owner: int = Field(
        default=200, ge=1, description="Sessions of one owner that may be open at once."
    )

    @field_validator(
        "mint_per_user",
        "mint_per_owner",
        "requests_per_user",
        "requests_per_owner",
        "requests_per_service",
        "unauthenticated_per_address",
    )
    @classmethod
    def _one_rate(cls, rate: str) -> str:
        message = "write a number and a time, such as 30/minute, 5/second or 100/2hours"
        try:
            items = parse_many(rate)
        except ValueError:
            raise ValueError(message) from None
        if len(items) != 1 or items[0].amount < 1 or items[0].get_expiry() < 1:
            raise ValueError(message)
        return rate

    @field_validator("storage_url")
    @classmethod
    def _known_storage(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if url.get_secret_value() == "memory://":
            return url
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            message = "must be memory://, redis://host:port or rediss://host:port"
            raise ValueError(message)
        if find_spec("redis") is None:
            message = "needs the redis client; install connect-broker[redis]"
            raise ValueError(message)
        return url


class Settings(BaseSettings):
    """All of them. Built once by `load_settings` and handed down; nothing else reads the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    environment: Environment = Field(
        default="production", description="production, or development: loopback only, http neighbours, no real keys."
    )
    http: HttpSettings = Field(default=HttpSettings())
    metrics: MetricsSettings = Field(default=MetricsSettings())
    logs: LogSettings = Field(default=LogSettings())
    stackone: StackOneSettings
    database: DatabaseSettings
    identity: IdentitySettings
    service_keys: ServiceKeySettings
    sessions: SessionSettings = Field(default=SessionSettings())
    sync: SyncSettings = Field(default=SyncSettings())
    push: PushSettings = Field(default=PushSettings())
    limits: LimitSettings = Field(default=LimitSettings())
    policy_file: Path | None = Field(
        default=None, description="TOML file that says who may open what; without it every owner may open everything."
    )


@dataclass(frozen=True)
class _Checked:
    value: Any
    mistakes: tuple[str, ...]


def _environment_name(*parts: str | int) -> str:
    """Spell a location as the variable an operator sets: ("http", "port") -> BROKER_HTTP__PORT."""
    name = PREFIX + "__".join(str(part).upper() for part in parts if not isinstance(part, int))
    return name + "".join(f"[{part}]" for part in parts if isinstance(part, int))


_WORDING = {
    "missing": "is required",
    "extra_forbidden": "no such setting; see docs/configuration.md",
    "tuple_type": 'must be a JSON list, such as ["..."]',
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}


def _wording(problem: ErrorDetails) -> str:
    return _WORDING.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")


def _check_field(name: str, raw: dict[str, Any]) -> _Checked:
    field = Settings.model_fields[name]
    if name not in raw and not field.is_required():
        return _Checked(field.get_default(call_default_factory=True), ())
    annotation = cast("Any", field.annotation)
    try:
        return _Checked(TypeAdapter(annotation).validate_python(raw.get(name, {})), ())
    except ValidationError as error:
        return _Checked(
            None,
            tuple(
                f"{_environment_name(name, *problem['loc'])}: {_wording(problem)}"
                for problem in error.errors(include_input=False, include_url=False, include_context=False)
            ),
        )


class _Variables(EnvSettingsSource):
    """The environment, and below it the files of BROKER_SECRETS_DIR, each named like its variable."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self.env_vars = {name.lower(): value for name, value in variables.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Leave text that is no JSON as it is: the field's own check then says so, with the variable's name."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _variables() -> dict[str, str]:
    """Collect every BROKER_ variable. Raises SettingsError for names that mean nothing: typos must not pass."""
    variables: dict[str, str] = {}
    directory = os.environ.get(SECRETS_DIR)
    if directory is not None:
        files = sorted(Path(directory).glob(f"{PREFIX}*")) if Path(directory).is_dir() else []
        if not files:
            raise SettingsError([f"{SECRETS_DIR}: no folder with files named like {PREFIX}DATABASE__URL"])
        variables = {path.name: path.read_text(encoding="utf-8").strip() for path in files}
    variables |= {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    variables.pop(SECRETS_DIR, None)
    return variables


def _unknown(variables: Mapping[str, str]) -> list[str]:
    known = {name.upper() for name in Settings.model_fields}
    return [
        f"{name}: no such setting; see docs/configuration.md"
        for name in variables
        if name.removeprefix(PREFIX).split("__")[0] not in known
    ]


def load_database_settings() -> DatabaseSettings:
    """Read the database section alone: migrations need no other secret. Raises SettingsError with all mistakes."""
    checked = _check_field("database", _Variables(_variables())())
    if checked.mistakes:
        raise SettingsError(checked.mistakes)
    return cast("DatabaseSettings", checked.value)


def load_settings() -> Settings:
    """Read and check every setting.

    Raises SettingsError with all mistakes, each naming its variable and never its value.
    """
    variables = _variables()
    mistakes = _unknown(variables)
    raw = _Variables(variables)()
    checked = {name: _check_field(name, raw) for name in Settings.model_fields}
    for outcome in checked.values():
        mistakes.extend(outcome.mistakes)
    environment: Environment = checked["environment"].value or "production"
    for name, outcome in checked.items():
        if isinstance(outcome.value, Section):
            mistakes.extend(
                f"{_environment_name(name)}__{setting}: {reason}"
                for setting, reason in outcome.value.unsafe(environment)
            )
    policy_file = checked["policy_file"].value
    if policy_file is not None and not policy_file.is_file():
        mistakes.append(f"{PREFIX}POLICY_FILE: the file does not exist")
    if mistakes:
        raise SettingsError(mistakes)
    return Settings.model_construct(**{name: outcome.value for name, outcome in checked.items()})
