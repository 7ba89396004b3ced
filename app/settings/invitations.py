"""Invitations: links that prove nothing until the right person has signed in."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from app.settings.section import Environment, Section, UrlText, secret_mistake, url_mistake

LONGEST_INVITATION = 90 * 86_400


class InvitationSettings(Section):
    """Links to a page of yours on which a signed-in user opens a connect session; off without a page."""

    page_url: UrlText | None = Field(
        examples=["https://app.example.com/connect"],
        default=None,
        description="Your page that opens invitations, to which #inv_... is added; without it there are none.",
    )
    secrets: Annotated[tuple[SecretStr, ...], Field(max_length=10)] = Field(
        examples=[["at-least-32-characters-nobody-guesses"]],
        default=(),
        description="What codes of invitations are made with (JSON list, at least 32 characters each). The first makes"
        " new ones, all open theirs: to rotate, put a new one in front and take the old one out 90 days later.",
    )
    expires_in_seconds: int = Field(
        default=7 * 86_400,
        ge=60,
        le=LONGEST_INVITATION,
        description="Life of an invitation whose request does not say.",
    )
    retention_days: int = Field(
        default=365, ge=1, le=3650, description="Days that an invitation is kept after it has expired."
    )

    @model_validator(mode="after")
    def _page_and_secrets(self) -> "InvitationSettings":
        if (self.page_url is None) != (not self.secrets):
            message = "page_url and secrets go together: give both, or neither"
            raise ValueError(message)
        return self

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """The page is reached over https, and its fragment is free; secrets are long."""
        if self.page_url is not None and (reason := url_mistake(self.page_url, environment)):
            yield "PAGE_URL", reason
        for number, secret in enumerate(self.secrets):
            reason = secret_mistake(secret, environment)
            if reason is None and len(secret.get_secret_value()) < _SHORTEST_SECRET:
                reason = f"must have at least {_SHORTEST_SECRET} characters"
            if reason:
                yield f"SECRETS[{number}]", reason


_SHORTEST_SECRET = 32
