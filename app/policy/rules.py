"""Policy: which rule decides about a wish, and what it makes of it. Pure; `policy_file` reads the rules.

The first rule that matches decides, and a rule allows only what it names. Where there is a policy file, whoever no rule
matches may open nothing; where there is none, everything is allowed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.identity.tokens.claims import meets
from app.stackone.models import Category

Channel = Literal["browser", "service", "auth_link"]


@dataclass(frozen=True)
class Request:
    """What somebody wants to open. `claims` are those of a verified token, and empty for services."""

    owner_id: str
    channel: Channel
    expires_in: int
    provider: str | None = None
    categories: tuple[Category, ...] | None = None
    connector_profile_id: str | None = None
    multiple: bool = False
    # The owner has an account of the provider, or has named one: unless a further one is made, this is a repair.
    has_account: bool = False
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Grant:
    """What the session may be: the wish, narrowed by the rule."""

    categories: tuple[Category, ...] | None
    multiple: bool
    expires_in: int
    max_accounts_per_provider: int | None


@dataclass(frozen=True)
class Decision:
    """What policy says and which rule said so; `grant` is there if it is allowed."""

    allowed: bool
    rule: str | None
    reason: str
    grant: Grant | None = None


@dataclass(frozen=True)
class Rule:
    """One rule. The matchers that are given must all fit; of the rest it allows what it names."""

    name: str
    line: int | None = None
    owners: tuple[str, ...] | None = None
    claims: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    channels: frozenset[Channel] | None = None
    deny: bool = False
    providers: tuple[str, ...] = ()
    categories: tuple[Category, ...] = ()
    connector_profiles: tuple[str, ...] = ()
    multiple: bool = False
    max_accounts_per_provider: int | None = None
    session_lifetime: int | None = None
    auth_links: bool = False

    @property
    def matches_everybody(self) -> bool:
        """Whether no later rule can ever be reached."""
        return (self.owners is None or "*" in self.owners) and not self.claims and self.channels is None

    def why_not(self, asked: Request) -> str | None:
        """Say why the rule does not match, or None if it does."""
        if self.channels is not None and asked.channel not in self.channels:
            return "it is for another channel"
        if self.owners is not None and not _fits(self.owners, asked.owner_id):
            return "it is for other owners"
        if self.claims and not meets(asked.claims, self.claims):
            return "the claims differ" if asked.claims else "it asks for claims, and there are none"
        return None


@dataclass(frozen=True)
class Policy:
    """The rules in order; None is the absence of a policy file."""

    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True)
class Considered:
    """How one rule stood to a wish; `why` says why it did not match."""

    rule: str
    line: int | None
    matched: bool
    why: str | None


class _Refused(Exception):
    """The rule that matches does not allow it."""


def decide(policy: Policy, asked: Request) -> Decision:
    """Say whether a wish is allowed, by which rule, why, and with which values."""
    if policy.rules is None:
        return Decision(
            allowed=True,
            rule=None,
            reason="there is no policy file, so everything is allowed",
            grant=Grant(asked.categories, asked.multiple, asked.expires_in, None),
        )
    for rule in policy.rules:
        if rule.why_not(asked) is None:
            try:
                return Decision(True, rule.name, f'rule "{rule.name}" allows it', _narrowed(rule, asked))
            except _Refused as refused:
                return Decision(False, rule.name, f'rule "{rule.name}" {refused}')
    return Decision(False, None, "no rule of the policy matches this owner, channel and claims")


def consider(policy: Policy, asked: Request) -> Sequence[Considered]:
    """List the rules up to the one that decides, and say of each why it did not match."""
    considered: list[Considered] = []
    for rule in policy.rules or ():
        why = rule.why_not(asked)
        considered.append(Considered(rule.name, rule.line, matched=why is None, why=why))
        if why is None:
            break
    return considered


def _narrowed(rule: Rule, asked: Request) -> Grant:
    """Lay the rule over the wish. Raises _Refused with what to say after the rule's name."""
    if rule.deny:
        raise _Refused("denies it")
    if asked.channel == "auth_link" and not rule.auth_links:
        raise _Refused("does not allow auth links")
    if asked.connector_profile_id is not None and not _fits(rule.connector_profiles, asked.connector_profile_id):
        raise _Refused("does not allow this connector profile; leave it out to use the default one")
    multiple = asked.multiple and rule.multiple
    if multiple and asked.provider is None and rule.max_accounts_per_provider is not None:
        raise _Refused("limits the accounts of each provider: name a provider to link a further account")
    lifetime = asked.expires_in if rule.session_lifetime is None else min(asked.expires_in, rule.session_lifetime)
    is_repair = asked.has_account and not multiple
    return Grant(_offered(rule, asked, is_repair=is_repair), multiple, lifetime, rule.max_accounts_per_provider)


def _offered(rule: Rule, asked: Request, *, is_repair: bool) -> tuple[Category, ...] | None:
    """Return the categories the picker may show; None is all, or that a provider is named."""
    if asked.provider is not None:
        # Only StackOne knows the category of a provider. An account that exists was allowed when it was linked
        # through the picker, and repairing it links nothing new.
        if _fits(rule.providers, asked.provider) or (is_repair and rule.categories):
            return asked.categories
        remedy = "; leave the provider out to pick from the categories it allows" if rule.categories else ""
        raise _Refused(f"does not allow this provider{remedy}")
    if not rule.categories:
        if "*" in rule.providers:
            return asked.categories
        raise _Refused("allows certain providers only: name a provider")
    if asked.categories is None:
        return rule.categories
    if not set(asked.categories) <= set(rule.categories):
        raise _Refused("does not allow all of these categories")
    return asked.categories


def _fits(patterns: Sequence[str], value: str) -> bool:
    """Say whether a value is one of the patterns, in which * stands for any text."""
    return any(
        value == pattern or ("*" in pattern and re.fullmatch(_expression(pattern), value, re.DOTALL) is not None)
        for pattern in patterns
    )


def _expression(pattern: str) -> str:
    return ".*".join(re.escape(part) for part in pattern.split("*"))
