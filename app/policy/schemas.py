"""The JSON of questions to policy."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field

from app.inputs import LONGEST_LIFE, SHORTEST_LIFE, Body, Metadata, OwnerId, ProviderKey, ShortText
from app.policy.rules import Channel, Considered, Decision, Request, default_lifetime
from app.settings import SessionSettings
from app.stackone.models import Category


class ExplainRequest(Body):
    """A request to ask policy about. Nothing is opened, and neither the store nor StackOne is looked at."""

    owner_id: OwnerId
    channel: Channel = Channel.BROWSER
    provider: ProviderKey | None = None
    categories: list[Category] | None = Field(default=None, min_length=1, max_length=20)
    connector_profile_id: ShortText | None = None
    multiple: bool = False
    has_account: bool = Field(default=False, description="The owner has an account of the provider already.")
    expires_in: int | None = Field(default=None, ge=SHORTEST_LIFE, le=LONGEST_LIFE)
    claims: Metadata | None = Field(default=None, description="Claims of the user's token; services have none.")

    def request(self, settings: SessionSettings) -> Request:
        """Return the request, with the lifetime that its channel gives where it names none."""
        return Request(
            owner_id=self.owner_id,
            channel=self.channel,
            expires_in=self.expires_in or default_lifetime(settings, self.channel),
            provider=self.provider,
            categories=tuple(self.categories) if self.categories else None,
            connector_profile_id=self.connector_profile_id,
            multiple=self.multiple,
            has_account=self.has_account,
            claims=self.claims or {},
        )


class ConsideredRule(BaseModel):
    """How one rule stood to the request."""

    rule: str
    line: int | None = Field(description="Where it stands in the policy file.")
    matched: bool
    why: str | None = Field(description="Why it did not match.")


class GrantOut(BaseModel):
    """What the session could be."""

    categories: list[Category] | None = Field(description="What the picker would show; null is everything.")
    multiple: bool
    expires_in: int
    max_accounts_per_provider: int | None


class Explanation(BaseModel):
    """What policy decides about a request."""

    allowed: bool
    rule: str | None = Field(description="The rule that decided; null: none matched, or there is no policy file.")
    reason: str
    grant: GrantOut | None = Field(description="The request as narrowed by the rule; null if refused.")
    considered: list[ConsideredRule] = Field(description="The rules in order, up to the one that decided.")

    @classmethod
    def of(cls, decision: Decision, considered: Sequence[Considered]) -> Self:
        """Show a Decision and the way to it."""
        grant = decision.grant
        return cls(
            allowed=decision.allowed,
            rule=decision.rule,
            reason=decision.reason,
            grant=GrantOut(
                categories=list(grant.categories) if grant.categories else None,
                multiple=grant.multiple,
                expires_in=grant.expires_in,
                max_accounts_per_provider=grant.max_accounts_per_provider,
            )
            if grant
            else None,
            considered=[
                ConsideredRule(rule=entry.rule, line=entry.line, matched=entry.matched, why=entry.why)
                for entry in considered
            ],
        )
