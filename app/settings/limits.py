"""Rate limits."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import Field, SecretStr, field_validator

from app.settings.section import Environment, Section, is_loopback


class LimitSettings(Section):
    """Rate limits. A rate is a number and a time, such as 30/minute, 5/second or 100/2hours."""

    storage_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="memory://, redis://host:port or rediss://host:port; limits are shared only through Redis.",
    )
    storage_timeout_seconds: float = Field(
        default=0.5, gt=0, le=10, description="Longest wait for Redis before the process counts by itself."
    )
    storage_without_tls: bool = Field(
        default=False, description="Redis on another machine may be spoken to without TLS, password included."
    )
    mint_per_user: str = Field(default="60/minute", description="Sessions one user may open.")
    mint_per_owner: str = Field(
        default="300/minute", description="Sessions that may be opened for one owner, through all channels."
    )
    requests_per_user: str = Field(default="300/minute", description="Requests one user may make.")
    requests_per_owner: str = Field(
        default="3000/minute", description="Requests all users of one owner may make to browser routes."
    )
    requests_per_service: str = Field(default="3000/minute", description="Requests one service credential may make.")
    user_tokens_per_service: str = Field(
        default="600/minute", description="User tokens that one service credential may have made."
    )
    unauthenticated_per_address: str = Field(
        default="300/minute", description="Refused credentials from one address before 429."
    )
    live_sessions_per_owner: int = Field(
        default=200, ge=1, description="Sessions of one owner that may be open at once, auth links not counted."
    )
    live_auth_links_per_owner: int = Field(
        default=200, ge=1, description="Auth links of one owner that may be open at once."
    )
    live_invitations_per_owner: int = Field(
        default=1000, ge=1, description="Invitations of one owner that may be open at once."
    )

    @field_validator(
        "mint_per_user",
        "mint_per_owner",
        "requests_per_user",
        "requests_per_owner",
        "requests_per_service",
        "user_tokens_per_service",
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

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """A password in the clear is said on purpose, or a mistake."""
        url = urlsplit(self.storage_url.get_secret_value())
        is_remote = url.scheme == "redis" and not is_loopback(url.hostname or "")
        if environment is Environment.PRODUCTION and is_remote and not self.storage_without_tls:
            yield (
                "STORAGE_URL",
                (
                    "Redis on another machine without TLS: write rediss://, or say so on purpose with"
                    " BROKER_LIMITS__STORAGE_WITHOUT_TLS=true"
                ),
            )

    @field_validator("storage_url")
    @classmethod
    def _known_storage(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() == "memory://":
            return url
        if not _is_redis(url.get_secret_value()):
            message = (
                "must be memory://, or redis://user:password@host:port/number (rediss:// with TLS), reserved characters"
                " of the password as %XX; of words after a question mark only ssl_cert_reqs=none or required is known"
            )
            raise ValueError(message)
        if find_spec("redis") is None:
            message = "needs the redis client; install connect-broker[redis]"
            raise ValueError(message)
        parts = urlsplit(url.get_secret_value())
        # The library behind wants the port to be said.
        return url if parts.port else SecretStr(parts._replace(netloc=f"{parts.netloc.rstrip(':')}:6379").geturl())


def _is_redis(url: str) -> bool:
    """Say whether the client will take a URL; it tells its own mistakes with the whole URL, password included."""
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        return False
    words = {"ssl_cert_reqs=none", "ssl_cert_reqs=required"} if parts.scheme == "rediss" else set()
    return (
        parts.scheme in {"redis", "rediss"}
        and bool(parts.hostname)
        and has_port
        and re.fullmatch(r"/?|/[0-9]{1,3}", parts.path) is not None
        and parts.query in {"", *words}
        and not parts.fragment
    )
