"""What every section of the settings shares, and what none may hold in production."""

import ipaddress
import re
from collections.abc import Iterator
from enum import Enum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import Url


class Environment(Enum):
    """How strict the settings are."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


# Everything that broker-demo generates begins like this, so that production can refuse it.
_DEMO_SECRET = "demo-"  # noqa: S105  a prefix, not a secret
_MINIMUM_SECRET_LENGTH = 16
# As examples have them; nobody who copied one should run with it.
_PLACEHOLDER = re.compile(r"(?i)(?:change|replace)[-_ ]?(?:me|this)|your[-_ ]|placeholder|insert[-_ ]|[*•xX]+$")


def is_loopback(host: str | None) -> bool:
    """Tell whether nobody but this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def listen_address(text: str) -> str:
    """Return an address to listen on, an IPv6 one without the brackets of URLs. Raises ValueError."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(inside)
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            message = "must be an address such as 127.0.0.1, 0.0.0.0 or ::, without scheme and port"
            raise ValueError(message) from None
    return inside


ListenAddress = Annotated[str, AfterValidator(listen_address)]


def _is_same_address(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)


def _malformed(url: str) -> str | None:
    if not url.isascii() or not url.isprintable() or " " in url:
        return "must be plain ASCII: the host as xn--..., other characters as %XX"
    try:
        host = urlsplit(url).hostname
        # Read once more as browsers and HTTP clients do. Where the two disagree somebody would be led astray.
        read_again = (Url(url).host or "").strip("[]")
        is_plain = not host or read_again == host or (":" in host and _is_same_address(read_again, host))
        is_plain = is_plain and urlsplit(url).port != 0
    except ValueError:
        is_plain = False
    return None if is_plain else "is no URL that can be used: its host or port is malformed"


def url_mistake(url: str, environment: Environment, *, may_have_query: bool = True) -> str | None:
    """Say what is wrong with the URL of an external: production uses https, development may use loopback http."""
    if reason := _malformed(url):
        return reason
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return "must not carry a user name or password"
    if "#" in url or ("?" in url and not may_have_query):
        return "must not carry a query or fragment" if not may_have_query else "must not carry a fragment"
    if parts.scheme == "https" and parts.hostname:
        return None
    if parts.scheme == "http" and environment is Environment.DEVELOPMENT:
        return None if is_loopback(parts.hostname) else "plain http is accepted only for a loopback address"
    return "must be an https:// URL (plain http is accepted only with BROKER_ENVIRONMENT=development, on loopback)"


def secret_mistake(secret: SecretStr, environment: Environment) -> str | None:
    """Say what is wrong with a secret: too short to be one, or the demo's."""
    value = secret.get_secret_value()
    if _PLACEHOLDER.match(value):
        return "is a placeholder; write the secret in its place"
    if len(value) < _MINIMUM_SECRET_LENGTH:
        return f"must have at least {_MINIMUM_SECRET_LENGTH} characters"
    if environment is Environment.PRODUCTION and value.startswith(_DEMO_SECRET):
        return "is a demo secret; production needs one of its own"
    return None


# Used as it is written: a slash at the end is part of it.
UrlText = Annotated[str, Field(min_length=1, max_length=2048)]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def browser_origin(text: str) -> str:
    """Return an origin as browsers send it: lower case, no default port, other alphabets as xn--. Raises ValueError."""
    message = "each entry is an origin such as https://app.example.com: scheme, host, port, nothing else"
    try:
        parts, url = urlsplit(text), Url(text)
    except ValueError:
        raise ValueError(message) from None
    whole = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in _DEFAULT_PORTS or not url.host or text.lower() != whole.lower() or set(text) & set("*@\\"):
        raise ValueError(message)
    port = "" if url.port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{url.port}"
    return f"{parts.scheme}://{url.host}{port}"


class Section(BaseModel):
    """A group of settings; frozen, and strict about names so that a typo is a mistake instead of a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Yield (setting below this section, reason) for each value that this environment must not run with."""
        del environment
        return iter(())
