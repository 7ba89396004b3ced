"""User tokens of the broker's own, for logins that issue no JWT."""

from collections.abc import Iterator

from pydantic import Field, SecretStr, field_validator

from app.settings.section import Environment, Section, secret_mistake

_SHORTEST_SECRET_BYTES = 32  # RFC 7518 section 3.2, for HS256
LONGEST_USER_TOKEN = 3600


class UserTokenSettings(Section):
    """Tokens that your backend has the broker make for a user that it has signed in; off without a secret."""

    secrets: tuple[SecretStr, ...] = Field(
        examples=[["at-least-32-bytes-that-nobody-guesses"]],
        default=(),
        max_length=10,
        description="What user tokens are signed with (JSON list, at least 32 bytes each). The first signs, all are"
        " accepted: to rotate, put a new one in front and take the old one out an hour later.",
    )
    audience: str = Field(
        default="connect-broker",
        min_length=1,
        max_length=255,
        description="Their `aud`; give brokers that share a secret one each.",
    )
    expires_in_seconds: int = Field(
        default=900, ge=60, le=LONGEST_USER_TOKEN, description="Life of a user token whose request does not say."
    )

    @field_validator("secrets")
    @classmethod
    def _each_once(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if len({secret.get_secret_value() for secret in secrets}) != len(secrets):
            message = "each secret is given once"
            raise ValueError(message)
        return secrets

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Secrets are long, and production's own."""
        for number, secret in enumerate(self.secrets):
            reason = secret_mistake(secret, environment)
            if reason is None and len(secret.get_secret_value().encode()) < _SHORTEST_SECRET_BYTES:
                reason = f"must have at least {_SHORTEST_SECRET_BYTES} bytes"
            if reason:
                yield f"SECRETS[{number}]", reason
