"""What somebody may ask of `broker-demo`, and the ways in which it can fail to start."""

from dataclasses import dataclass
from pathlib import Path


class DemoError(Exception):
    """The demo cannot run; the message says what to do about it."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The command line."""

    port: int
    sandbox_port: int
    page_port: int
    metrics_port: int
    provider_port: int
    directory: Path
    database_url: str | None
    broker_env: tuple[str, ...]
    as_json: bool

    def extra_environment(self) -> dict[str, str]:
        """Return the settings given as KEY=VALUE. Raises DemoError."""
        pairs: dict[str, str] = {}
        for given in self.broker_env:
            name, equals, value = given.partition("=")
            if not equals or not name.startswith("BROKER_"):
                raise DemoError("--broker-env takes BROKER_NAME=VALUE, once for each setting")
            pairs[name] = value
        return pairs
