"""The command line of `broker-demo`, and the error for a demo that cannot run."""

from dataclasses import dataclass
from pathlib import Path


class DemoError(Exception):
    """The demo cannot run; the message says what to do about it."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The command line; a port of None was not given."""

    port: int | None = None
    sandbox_port: int | None = None
    page_port: int | None = None
    metrics_port: int | None = None
    provider_port: int | None = None
    free_ports: bool = False
    directory: Path
    database_url: str | None = None
    broker_env: tuple[str, ...] = ()
    as_json: bool = False

    def extra_environment(self) -> dict[str, str]:
        """Return the settings given as KEY=VALUE. Raises DemoError."""
        pairs: dict[str, str] = {}
        for given in self.broker_env:
            name, equals, value = given.partition("=")
            if not equals or not name.startswith("BROKER_"):
                raise DemoError("--broker-env takes BROKER_NAME=VALUE, once for each setting")
            pairs[name] = value
        return pairs
