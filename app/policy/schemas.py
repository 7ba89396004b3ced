"""The JSON of questions to policy."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field

from app.connect_sessions.schemas import LONGEST_LIFE, SHORTEST_LIFE, Body, Metadata
from app.inputs import OwnerId, ProviderKey, ShortText
from app.policy.rules import Asked, Considered, Decision, Door
from app.settings import SessionSettings
from app.stackone.models import Category


class ExplainRequest(Body):
    """A wish to ask policy about. Nothing is opened, and neither the store nor StackOne is looked at."""

    owner_id: OwnerId
    door: Door = "browser"
    provider: ProviderKey | None = None
    categories: list[Category] | None = Field(default=None, min_length=1, max_length=20)
    connector_profile_id: ShortText | None = None
    multiple: bool = False
    has_account: bool = Field(default=False, description="The owner has an account of the provider already.")
    expires_in: int | None = Field(default=None, ge=SHORTEST_LIFE, le=LONGEST_LIFE)
    claims: Metadata | None = Field(default=None, description="Claims of the user's token; services have none.")

    def asked(self, settings: SessionSettings) -> Asked:
        """Return the wish, with the lifetime that its door gives where it names none."""
        is_link = self.door == "auth_link"
        default = settings.auth_link_expires_in_seconds if is_link else settings.expires_in_seconds
        return Asked(
            owner_id=self.owner_id,
            door=self.door,
            expires_in=self.expires_in or default,
            provider=self.provider,
            categories=tuple(self.categories) if self.categories else None,
            connector_profile_id=self.connector_profile_id,
            multiple=self.multiple,
            has_account=self.has_account,
            claims=self.claims or {},
        )


class ConsideredRule(BaseModel):
    """How one rule stood to the wish."""

    rule: str
    line: int | None = Field(description="Where it stands in the policy file.")
    matched: bool
    why: str | None = Field(description="Why it did not match.")


class EffectiveSession(BaseModel):
    """What the session could be."""

    categories: list[Category] | None = Field(description="What the picker would show; null is everything.")
    multiple: bool
    expires_in: int
    max_accounts_per_provider: int | None


class Explanation(BaseModel):
    """What policy makes of a wish."""

    allowed: bool
    rule: str | None = Field(description="The rule that decided; null: none matched, or there is no policy file.")
    reason: str
    effective: EffectiveSession | None = Field(description="The wish as narrowed by the rule; null if refused.")
    considered: list[ConsideredRule] = Field(description="The rules in order, up to the one that decided.")

    @classmethod
    def of(cls, decision: Decision, considered: Sequence[Considered]) -> Self:
        """Show a Decision and the way to it."""
        effective = decision.effective
        return cls(
            allowed=decision.allowed,
            rule=decision.rule,
            reason=decision.reason,
            effective=EffectiveSession(
                categories=list(effective.categories) if effective.categories else None,
                multiple=effective.multiple,
                expires_in=effective.expires_in,
                max_accounts_per_provider=effective.max_accounts_per_provider,
            )
            if effective
            else None,
            considered=[
                ConsideredRule(rule=entry.rule, line=entry.line, matched=entry.matched, why=entry.why)
                for entry in considered
            ],
        )
