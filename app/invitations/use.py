"""One question for agents and jobs: which account of a provider to work with, and where there is none, what now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from app.audit.entries import Action, AuditEntry, append_alone
from app.errors import NotFound
from app.identity.invitation_codes import link
from app.invitations import store
from app.invitations.choose import Answer, Choice, choose
from app.invitations.pins import pinned_for
from app.invitations.store import Invitation
from app.linked_accounts.fresh import get_fresh_account_of_owner
from app.linked_accounts.queries import FreshQuery
from app.linked_accounts.store import LinkedAccount, list_of_provider_for_owner
from app.policy import rules
from app.policy.rules import Channel
from app.runtime import Runtime

_ACCOUNTS_CONSIDERED = 100
# A link that is handed out again lives at least as long as this.
_LEAST_LIFE = timedelta(days=1)


@dataclass(frozen=True)
class Asker:
    """For whom is asked: an owner, and one of its users where that is known."""

    owner_id: str
    username: str | None
    channel: Channel
    actor: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Use:
    """The answer."""

    provider: str
    label: str
    answer: Answer
    account: LinkedAccount | None = None
    candidates: Sequence[LinkedAccount] = ()
    stale: bool = False
    invitation: Invitation | None = None
    url: str | None = None
    rule: str | None = None
    reason: str | None = None


async def use(runtime: Runtime, asker: Asker, provider: str, query: FreshQuery) -> Use:
    """Say which account of a provider is to be used, or what somebody has to do first.

    What has to be connected or repaired comes with an invitation, made now unless one is out already. Raises
    Unavailable or UpstreamRejected with `must_be_fresh`; TooManyRequests if the owner has too many invitations.
    """
    choice, stale = await _fresh_choice(runtime, asker, provider, query)
    label = await _label(runtime, provider)
    if choice.answer in {Answer.READY, Answer.CHOOSE}:
        return Use(provider, label, choice.answer, choice.account, choice.candidates, stale)
    question = _question(runtime, asker, provider, has_account=choice.account is not None)
    decision = rules.decide(runtime.policy, question)
    if not decision.allowed:
        details = {**question.told(), "rule": decision.rule, "reason": decision.reason}
        now = runtime.clock.now()
        entry = AuditEntry(Action.POLICY_REFUSED, now, asker.actor, asker.owner_id, details=details)
        await runtime.groups.commit(append_alone, entry)
        return Use(provider, label, Answer.REFUSED, rule=decision.rule, reason=decision.reason)
    invitation = await _invitation(runtime, asker, provider, choice.account)
    url = link(runtime.settings.invitations, invitation.id) if invitation else None
    return Use(provider, label, choice.answer, choice.account, (), stale, invitation, url)


async def _fresh_choice(runtime: Runtime, asker: Asker, provider: str, query: FreshQuery) -> tuple[Choice, bool]:
    """Choose, have what was chosen read where it is too old, and choose again: it may be broken or gone now."""
    choice = await _choice(runtime, asker, provider)
    if choice.account is None or query.max_age is None:
        return choice, False
    try:
        _, stale = await get_fresh_account_of_owner(runtime, asker.owner_id, choice.account.account_id, query)
    except NotFound:
        stale = False
    return await _choice(runtime, asker, provider), stale


async def _choice(runtime: Runtime, asker: Asker, provider: str) -> Choice:
    accounts = await list_of_provider_for_owner(runtime.database, asker.owner_id, provider, limit=_ACCOUNTS_CONSIDERED)
    async with runtime.database.reading() as connection:
        pinned = await pinned_for(connection, asker.owner_id, provider, asker.username)
    return choose(accounts, pinned=pinned, username=asker.username)


def _question(runtime: Runtime, asker: Asker, provider: str, *, has_account: bool) -> rules.Request:
    lifetime = rules.default_lifetime(runtime.settings.sessions, asker.channel)
    return rules.Request(
        asker.owner_id, asker.channel, lifetime, provider=provider, has_account=has_account, claims=asker.claims
    )


async def _label(runtime: Runtime, provider: str) -> str:
    """Return the provider's name as people know it, where StackOne has told it already."""
    configs = await runtime.auth_configs.known() or ()
    labels = (config.label or config.name for config in configs if config.provider.lower() == provider.lower())
    return next((label for label in labels if label), provider)


async def _invitation(
    runtime: Runtime, asker: Asker, provider: str, account: LinkedAccount | None
) -> Invitation | None:
    """Return an invitation to connect or repair, one that is out already or a new one; None without a page for them."""
    settings = runtime.settings.invitations
    if settings.page_url is None:
        return None
    now = runtime.clock.now()
    wanted = Invitation(
        id=runtime.new_id("inv"),
        owner_id=asker.owner_id,
        requested_by=asker.actor,
        provider=None if account else provider,
        account_id=account.account_id if account else None,
        username=asker.username,
        return_url=None,
        created_at=now,
        expires_at=now + timedelta(seconds=settings.expires_in_seconds),
    )
    async with runtime.database.transaction() as connection:
        # Before the look: of two who ask at once, the second finds what the first has made.
        await store.lock_invitations(connection)
        is_long = settings.expires_in_seconds > 2 * _LEAST_LIFE.total_seconds()
        until = now + _LEAST_LIFE if is_long else now
        known = await store.find_live(
            connection,
            asker.owner_id,
            provider=wanted.provider,
            account_id=wanted.account_id,
            username=wanted.username,
            until=until,
        )
        if known is None:
            most = runtime.settings.limits.live_invitations_per_owner
            await store.insert_invitation(connection, wanted, most_live=most, now=now)
    return known or wanted
