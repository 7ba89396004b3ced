"""Push: which services get every change."""

import base64
from collections.abc import Iterator
from typing import Self

from pydantic import Field, SecretStr, model_validator

from app.settings.section import Environment, Section, UrlText, url_mistake

_MINIMUM_PUSH_SECRET_BYTES = 24  # Standard Webhooks, "signature scheme"


class PushDestination(Section):
    """One of your services that gets every change as a signed webhook."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Its name, for commands and metrics.")
    url: UrlText = Field(description="Where changes are posted; https, and at a public address.")
    secret: SecretStr = Field(description="Signing secret (Standard Webhooks): whsec_ and base64.")

    def mistakes(self, environment: Environment) -> Iterator[str]:
        """Yield what this environment must not accept of this destination."""
        if reason := url_mistake(self.url, environment):
            yield f"url {reason}"
        encoded = self.secret.get_secret_value()
        try:
            key = base64.b64decode(encoded.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not encoded.startswith("whsec_") or len(key) < _MINIMUM_PUSH_SECRET_BYTES:
            yield f"secret must be whsec_ and base64 of at least {_MINIMUM_PUSH_SECRET_BYTES} random bytes"


class PushSettings(Section):
    """Which services get every change as a signed webhook."""

    destinations: tuple[PushDestination, ...] = Field(
        default=(),
        max_length=20,
        description='Services that get every change (JSON list of {"name", "url", "secret"}); none by default.',
    )
    timeout_seconds: float = Field(default=10, gt=0, le=60, description="Longest wait for a destination's answer.")
    max_attempts: int = Field(default=12, ge=1, le=50, description="Attempts of one delivery before it is dead.")
    backoff_seconds: float = Field(default=5, gt=0, le=600, description="First wait after a failed delivery; doubles.")
    max_backoff_seconds: float = Field(
        default=3600, ge=1, le=86_400, description="Longest wait between attempts of a delivery."
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
