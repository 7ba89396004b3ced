"""Policy: which rule decides about a request, and what it grants. Pure; `file` reads the rules.

The first rule that matches decides, and a rule allows only what it names. Where there is a policy file, whoever no rule
matches may open nothing; where there is none, everything is allowed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from app.identity.tokens.claims import meets
from app.inputs import fits_any
from app.settings import SessionSettings
from app.stackone.models import Category

_FOR_OTHERS = "it is for other owners"


class Channel(Enum):
    """How a session is requested: by a signed-in user, by a service, or by a service as a link for a person."""

    BROWSER = "browser"
    SERVICE = "service"
    AUTH_LINK = "auth_link"


@dataclass(frozen=True)
class Request:
    """A question to policy: may this be opened? `claims` are those of a verified token, and empty for services."""

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

    def told(self) -> dict[str, Any]:
        """Return what was requested, for the audit trail: without the claims, which are personal."""
        return {
            "channel": self.channel.value,
            "provider": self.provider,
            "categories": [category.value for category in self.categories] if self.categories else None,
            "connector_profile_id": self.connector_profile_id,
            "multiple": self.multiple,
        }


@dataclass(frozen=True)
class Grant:
    """What the session may be: the request, narrowed by the rule."""

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

    def why_not(self, request: Request) -> str | None:
        """Say why the rule does not match, or None if it does."""
        # Owners first: of a rule that is for others, nothing else matters, nor may everybody know it.
        if self.owners is not None and not fits_any(self.owners, request.owner_id):
            return _FOR_OTHERS
        if self.channels is not None and request.channel not in self.channels:
            return "it is for another channel"
        if self.claims and not meets(request.claims, self.claims):
            return "the claims differ" if request.claims else "it asks for claims, and there are none"
        return None


@dataclass(frozen=True)
class Policy:
    """The rules in order; None is the absence of a policy file."""

    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True)
class Considered:
    """How one rule stood to a request; `why` says why it did not match."""

    rule: str
    line: int | None
    matched: bool
    why: str | None

    @property
    def is_for_others(self) -> bool:
        """Whether the rule is for other owners."""
        return self.why == _FOR_OTHERS


def default_lifetime(settings: SessionSettings, channel: Channel) -> int:
    """Return how many seconds a session is valid whose request does not say."""
    is_link = channel is Channel.AUTH_LINK
    return settings.auth_link_expires_in_seconds if is_link else settings.expires_in_seconds


class _Refused(Exception):
    """The rule that matches does not allow it."""


def decide(policy: Policy, request: Request) -> Decision:
    """Say whether a request is allowed, by which rule, why, and what is granted."""
    if policy.rules is None:
        return Decision(
            allowed=True,
            rule=None,
            reason="there is no policy file, so everything is allowed",
            grant=Grant(request.categories, request.multiple, request.expires_in, None),
        )
    for rule in policy.rules:
        if rule.why_not(request) is None:
            try:
                return Decision(True, rule.name, f'rule "{rule.name}" allows it', _narrowed(rule, request))
            except _Refused as refused:
                return Decision(False, rule.name, f'rule "{rule.name}" {refused}')
    return Decision(False, None, "no rule of the policy matches this owner, channel and claims")


def consider(policy: Policy, request: Request) -> Sequence[Considered]:
    """List the rules up to the one that decides, and say of each why it did not match."""
    considered: list[Considered] = []
    for rule in policy.rules or ():
        why = rule.why_not(request)
        considered.append(Considered(rule.name, rule.line, matched=why is None, why=why))
        if why is None:
            break
    return considered


def unknown_names(
    policy: Policy, providers: Collection[str], profiles: Collection[str]
) -> Iterator[tuple[Rule, str, str]]:
    """Yield each rule with a provider or connector profile that it names and that there is none of. Pure."""
    for rule in policy.rules or ():
        for what, patterns, known in (
            ("provider", rule.providers, providers),
            ("connector profile", rule.connector_profiles, profiles),
        ):
            for pattern in patterns:
                if not any(fits_any((pattern,), name) for name in known):
                    yield rule, what, pattern


def _narrowed(rule: Rule, request: Request) -> Grant:
    """Narrow the request to what the rule allows. Raises _Refused with what to say after the rule's name."""
    if rule.deny:
        raise _Refused("denies it")
    if request.channel is Channel.AUTH_LINK and not rule.auth_links:
        raise _Refused("does not allow auth links")
    if request.connector_profile_id is not None and not fits_any(rule.connector_profiles, request.connector_profile_id):
        raise _Refused("does not allow this connector profile; leave it out to use the default one")
    multiple = request.multiple and rule.multiple
    if multiple and request.provider is None and rule.max_accounts_per_provider is not None:
        raise _Refused("limits the accounts of each provider: name a provider to link a further account")
    lifetime = request.expires_in if rule.session_lifetime is None else min(request.expires_in, rule.session_lifetime)
    is_repair = request.has_account and not multiple
    return Grant(_offered(rule, request, is_repair=is_repair), multiple, lifetime, rule.max_accounts_per_provider)


def _offered(rule: Rule, request: Request, *, is_repair: bool) -> tuple[Category, ...] | None:
    """Return the categories the picker may show; None is all, or that a provider is named."""
    if request.provider is not None:
        # Only StackOne knows the category of a provider. An account that exists was allowed when it was linked
        # through the picker, and repairing it links nothing new.
        if fits_any(rule.providers, request.provider) or (is_repair and rule.categories):
            return request.categories
        remedy = "; leave the provider out to pick from the categories it allows" if rule.categories else ""
        raise _Refused(f"does not allow this provider{remedy}")
    if not rule.categories:
        if "*" in rule.providers:
            return request.categories
        raise _Refused("allows certain providers only: name a provider")
    if request.categories is None:
        return rule.categories
    if not set(request.categories) <= set(rule.categories):
        raise _Refused("does not allow all of these categories")
    return request.categories
