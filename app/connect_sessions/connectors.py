"""Connectors: which providers may be linked for an owner, so that a page needs no list of its own.

What the project offers comes from StackOne's auth configs, which are kept for some minutes; what of it may be linked is
policy's word, asked the same way as at a mint.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.connect_sessions.queries import ConnectorsQuery
from app.linked_accounts.store import providers_of_owner
from app.policy import rules
from app.policy.rules import Channel, Policy
from app.runtime import Runtime
from app.stackone.models import AuthConfig, Category

_SHOWN_LOGOS = ("https://", "data:image/")
_LONGEST_LOGO = 32_768


@dataclass(frozen=True)
class Connector:
    """A provider that may be linked for an owner."""

    key: str
    label: str
    logo_url: str | None
    categories: tuple[str, ...]
    linked: bool
    picker_only: bool
    """Whether policy allows it by its category only: it can be picked in the Hub, but not be named in a request."""
    profiles: tuple[AuthConfig, ...]
    """The auth configs that may be used, the default one first."""


async def list_connectors(
    runtime: Runtime, owner_id: str, channel: Channel, claims: Mapping[str, Any], query: ConnectorsQuery
) -> tuple[Sequence[Connector], bool]:
    """Return a page of what may be linked for the owner, in the order of the keys, and whether there is more.

    Raises Unavailable or UpstreamRejected if StackOne has never told what the project offers; later on the last that is
    known serves while it is away.
    """
    configs = await runtime.auth_configs.get()
    async with runtime.database.reading() as connection:
        linked = await providers_of_owner(connection, owner_id)
    lifetime = rules.default_lifetime(runtime.settings.sessions, channel)
    question = rules.Request(owner_id, channel, lifetime, claims=claims)
    offered = connectors(configs, runtime.policy, question, linked)
    after = [connector for connector in offered if query.cursor is None or connector.key > query.cursor]
    return after[: query.limit], len(after) > query.limit


def connectors(
    configs: Iterable[AuthConfig], policy: Policy, question: rules.Request, linked: Iterable[str]
) -> list[Connector]:
    """Return what policy lets somebody link of what the project offers, in the order of the keys. Pure."""
    of_provider: dict[str, list[AuthConfig]] = {}
    for config in configs:
        if config.enabled:
            of_provider.setdefault(config.provider, []).append(config)
    owned = {provider.casefold() for provider in linked}
    found = (
        _connector(
            key, sorted(mine, key=lambda config: not config.default), policy, question, linked=key.casefold() in owned
        )
        for key, mine in sorted(of_provider.items())
    )
    return [connector for connector in found if connector is not None]


def _connector(
    key: str, configs: Sequence[AuthConfig], policy: Policy, question: rules.Request, *, linked: bool
) -> Connector | None:
    categories = tuple(dict.fromkeys(category for config in configs for category in config.categories))
    named = replace(question, provider=key, has_account=linked)
    allowed = [config for config in configs if _allows(policy, replace(named, connector_profile_id=config.id))]
    # Whoever names no profile gets the project's default one, which needs no permission of its own.
    default = [config for config in configs if config.default] if _allows(policy, named) else []
    profiles = tuple({config.id: config for config in (*default, *allowed)}.values())
    is_named = bool(profiles) or _allows(policy, named)
    if not is_named and not _is_picked(policy, question, categories):
        return None
    first = configs[0]
    logo = first.logo_url if first.logo_url and first.logo_url.startswith(_SHOWN_LOGOS) else None
    return Connector(
        key=key,
        label=first.label or first.name or key,
        logo_url=logo if logo and len(logo) <= _LONGEST_LOGO else None,
        categories=categories,
        linked=linked,
        picker_only=not is_named,
        profiles=profiles,
    )


def _is_picked(policy: Policy, question: rules.Request, categories: Iterable[str]) -> bool:
    known = {category.value: category for category in Category}
    return any(
        _allows(policy, replace(question, categories=(known[category],)))
        for category in categories
        if category in known
    )


def _allows(policy: Policy, question: rules.Request) -> bool:
    return rules.decide(policy, question).allowed
