"""Push: which services get every change."""

import base64
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from app.settings.reach import Places, is_public, parse_address
from app.settings.section import Environment, Section, UrlText, is_loopback, url_mistake

# Names that lead nowhere else (RFC 6761 section 6.3), and the one that some systems add.
_IS_THIS_MACHINE = re.compile(r"(?i)(?:.*\.)?localhost(?:\.localdomain)?\.?")
_MINIMUM_PUSH_SECRET_BYTES = 24  # Standard Webhooks, "signature scheme"


class PushDestination(Section):
    """One of your services that gets every change as a signed webhook."""

    name: str = Field(
        examples=["billing"], pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Its name, for commands and metrics."
    )
    url: UrlText = Field(
        examples=["https://billing.example.com/hooks/connect"],
        description="Where changes are posted; https, and at a public address.",
    )
    secret: SecretStr | None = Field(
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwzHkkYJKD"],
        default=None,
        description="Signing secret (Standard Webhooks): whsec_ and base64.",
    )
    secrets: tuple[SecretStr, ...] = Field(
        examples=[["whsec_n0aRHGdgJzBhTrfU4pWq6kXyVLx2cMbSdIeoA1vC"]],
        default=(),
        max_length=5,
        description="Further signing secrets: every delivery is signed with each, so that one can be rotated without a"
        " gap.",
    )
    events: tuple[str, ...] = Field(
        examples=[["account.needs_reauth", "account.recovered"]],
        default=(),
        max_length=20,
        description="Only changes of these kinds, such as account.needs_reauth, * standing for any text; all by"
        " default.",
    )
    owners: tuple[str, ...] = Field(
        examples=[["acme-*"]],
        default=(),
        max_length=200,
        description="Only these owners' changes, * standing for any text; all by default.",
    )

    @model_validator(mode="after")
    def _has_secret(self) -> Self:
        if not self.signing_secrets:
            message = "a destination needs a secret"
            raise ValueError(message)
        return self

    @property
    def signing_secrets(self) -> tuple[SecretStr, ...]:
        """Every secret that a delivery is signed with."""
        return (*((self.secret,) if self.secret else ()), *self.secrets)

    def mistakes(self, environment: Environment, inside: Places) -> Iterator[str]:
        """Yield what this environment must not accept of this destination; `inside` is the operator's own network."""
        if reason := self._url_mistake(environment, inside):
            yield f"url {reason}"
        for secret in self.signing_secrets:
            encoded = secret.get_secret_value()
            try:
                key = base64.b64decode(encoded.removeprefix("whsec_"), validate=True)
            except ValueError:
                key = b""
            if not encoded.startswith("whsec_") or len(key) < _MINIMUM_PUSH_SECRET_BYTES:
                yield f"secret must be whsec_ and base64 of at least {_MINIMUM_PUSH_SECRET_BYTES} random bytes"

    def _url_mistake(self, environment: Environment, inside: Places) -> str | None:
        https_spelled = "https:" + self.url.partition(":")[2] if self.url.startswith("http://") else self.url
        malformed = url_mistake(https_spelled, environment)
        if malformed or environment is Environment.DEVELOPMENT:
            return malformed or url_mistake(self.url, environment)
        host = urlsplit(self.url).hostname or ""
        if inside.hold(host):
            return None
        if (
            is_loopback(host)
            or _IS_THIS_MACHINE.fullmatch(host)
            or (parse_address(host) is not None and not is_public(host))
        ):
            return "is no public address; if that is meant, list it in BROKER_PUSH__ALLOWED_NETWORKS"
        if https_spelled != self.url:
            return "is plain http, which only a host or address of BROKER_PUSH__ALLOWED_NETWORKS may use"
        return None


class PushSettings(Section):
    """Which services get every change as a signed webhook."""

    destinations: tuple[PushDestination, ...] = Field(
        examples=[
            [
                {
                    "name": "billing",
                    "url": "https://billing.example.com/hooks",
                    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwzHkkYJKD",
                }
            ]
        ],
        default=(),
        max_length=20,
        description='Services that get every change (JSON list of {"name", "url", "secret"}); none by default.',
    )
    allowed_networks: tuple[str, ...] = Field(
        examples=[["10.20.0.0/16", ".svc.cluster.local"]],
        default=(),
        max_length=100,
        description=(
            "Networks, addresses or hosts of your own that may be posted to though they are not public, plain http"
            " included; .example.com names every host below it."
        ),
    )
    settle_seconds: float = Field(
        default=60,
        ge=0,
        le=86_400,
        description="How long an account must need somebody to sign in before services are told: one that works again"
        " by then was never broken to them.",
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

    @field_validator("allowed_networks")
    @classmethod
    def _understood(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        Places.of(entries)
        return entries

    @cached_property
    def inside(self) -> Places:
        """Where deliveries may go though it is not public."""
        return Places.of(self.allowed_networks)

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Destinations are reached over https, and secrets are long."""
        for number, destination in enumerate(self.destinations):
            for mistake in destination.mistakes(environment, self.inside):
                yield f"DESTINATIONS[{number}]", mistake
