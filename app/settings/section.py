"""What every section of the settings shares, and what none may hold in production."""

import ipaddress
from collections.abc import Iterator
from enum import Enum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr


class Environment(Enum):
    """How strict the settings are."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


# Everything that broker-demo generates begins like this, so that production can refuse it.
_DEMO_SECRET = "demo-"  # noqa: S105  a prefix, not a secret
_MINIMUM_SECRET_LENGTH = 16


def is_loopback(host: str | None) -> bool:
    """Tell whether nobody but this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def url_mistake(url: str, environment: Environment) -> str | None:
    """Say what is wrong with the URL of an external: production uses https, development may use loopback http."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        return "must not carry a user name or password"
    if parts.query or parts.fragment:
        return "must not carry a query or fragment"
    if parts.scheme == "https" and parts.hostname:
        return None
    if parts.scheme == "http" and environment is Environment.DEVELOPMENT:
        return None if is_loopback(parts.hostname) else "plain http is accepted only for a loopback address"
    return "must be an https:// URL (plain http is accepted only with BROKER_ENVIRONMENT=development, on loopback)"


def secret_mistake(secret: SecretStr, environment: Environment) -> str | None:
    """Say what is wrong with a secret: too short to be one, or the demo's."""
    value = secret.get_secret_value()
    if len(value) < _MINIMUM_SECRET_LENGTH:
        return f"must have at least {_MINIMUM_SECRET_LENGTH} characters"
    if environment is Environment.PRODUCTION and value.startswith(_DEMO_SECRET):
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
