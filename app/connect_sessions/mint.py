"""Mint: from a verified owner and a request to a connect-session token.

No transaction is open while StackOne is called; the ledger row is committed before the call, and completed before the
token leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from pydantic import SecretStr

from app.audit.entries import Action, AuditEntry, append_alone
from app.connect_sessions.ledger import Session
from app.connect_sessions.opening import Closing, Opening, close_minting, write_down, write_down_unless_linked
from app.connect_sessions.tables import Mode, Status
from app.db.counters import raise_counter
from app.errors import AppError, BeingDisconnected, FieldError, Forbidden, NotFound, Unprocessable
from app.identity.caller import Owner
from app.linked_accounts import due
from app.linked_accounts.store import LinkedAccount, get_for_owner, list_of_provider_for_owner
from app.policy import rules
from app.policy.rules import Channel, Grant
from app.runtime import Runtime
from app.stackone.models import (
    AccountGone,
    ConnectSession,
    ConnectSessionRequest,
    OwnedConnectSessionRequest,
    possible_account_id,
)

logger = structlog.get_logger(__name__)

_ACCOUNTS_CONSIDERED = 100
# StackOne is asked about this many accounts to find one to edit; the store is nearly always right about the first.
_ACCOUNTS_TRIED = 3
_LEAVING_RETRY_AFTER = 5.0
UNECHOED = "mint_unechoed_"
"""With the name of a field: a counter that says in which hour, since 1970, StackOne last did not echo it."""


@dataclass(frozen=True)
class Minted:
    """A session whose ledger row is committed, with its secrets."""

    id: str
    token: SecretStr
    auth_link_url: SecretStr
    expires_at: datetime
    expires_in: int
    mode: Mode
    account_id: str | None
    provider: str | None
    owner_id: str
    owner_name: str
    name_pinned: bool
    """Whether a name was sent that does not count, since another one is pinned."""


async def mint(runtime: Runtime, owner: Owner, request: ConnectSessionRequest, channel: Channel) -> Minted:
    """Open a session for `owner`; policy may narrow the request.

    Raises NotFound if `request.account_id` is not an account of the owner, in our store and at StackOne alike;
    BeingDisconnected if the account to edit is about to go;
    Forbidden if policy does not allow the request; TooManyRequests if the owner has too many sessions open;
    Unavailable or UpstreamRejected as StackOne answers.
    """
    expires_in = request.expires_in or rules.default_lifetime(runtime.settings.sessions, channel)
    request = replace(request, expires_in=expires_in)
    known: Sequence[LinkedAccount] | None = None
    owner_name: str | None = None
    decided = _decide_first(runtime, owner, request, channel)
    if decided is not None:
        owner_name, known = await write_down_unless_linked(runtime.database, decided[0], most=_ACCOUNTS_CONSIDERED)
    if decided is None or owner_name is None:
        decided = await _decide(runtime, owner, request, channel, known)
        owner_name = await write_down(runtime.database, decided[0])
    opening, grant = decided
    session = opening.session
    granted = replace(
        request,
        provider=session.provider,
        account_id=session.account_id,
        categories=grant.categories,
        # False is StackOne's default.
        multiple=True if session.multiple else None,
        expires_in=grant.expires_in,
    )
    opened = await _open_at_stackone(
        runtime, session.id, OwnedConnectSessionRequest(owner.owner_id, owner_name, owner.username, granted)
    )
    runtime.metrics.sessions.labels(channel.value, session.mode.value).inc()
    logger.info(
        "connect_session_minted",
        session_id=session.id,
        channel=channel.value,
        mode=session.mode.value,
        actor=owner.requested_by,
        rule=opening.rule,
    )
    return Minted(
        id=session.id,
        token=opened.token,
        auth_link_url=opened.auth_link_url,
        expires_at=session.expires_at,
        expires_in=grant.expires_in,
        mode=session.mode,
        account_id=session.account_id,
        provider=session.provider,
        owner_id=owner.owner_id,
        owner_name=owner_name,
        name_pinned=owner.owner_name not in {owner_name, owner.owner_id},
    )


def _decide_first(
    runtime: Runtime, owner: Owner, request: ConnectSessionRequest, channel: Channel
) -> tuple[Opening, Grant] | None:
    """Decide about a first account of a provider, as most sessions are for; None where that has to be looked at.

    Whether it is a first one, the store says when the session is written down.
    """
    if request.account_id is not None or request.provider is None or request.multiple:
        return None
    decision = rules.decide(runtime.policy, _question(owner, request, channel, request.provider, has_account=False))
    if decision.grant is None:
        return None
    return _decided(runtime, owner, request, channel, None, decision.grant, decision.rule)


async def _decide(
    runtime: Runtime,
    owner: Owner,
    request: ConnectSessionRequest,
    channel: Channel,
    known: Sequence[LinkedAccount] | None,
) -> tuple[Opening, Grant]:
    """Decide which account is edited, if there is one, and by which rule; `known` are those of the provider."""
    account, grant, rule = await _account_and_grant(runtime, owner, request, channel, known)
    return _decided(runtime, owner, request, channel, account, grant, rule)


def _decided(
    runtime: Runtime,
    owner: Owner,
    request: ConnectSessionRequest,
    channel: Channel,
    account: LinkedAccount | None,
    grant: Grant,
    rule: str | None,
) -> tuple[Opening, Grant]:
    mode = Mode.EDIT if account else Mode.CREATE
    started = runtime.clock.now()
    session = Session(
        id=runtime.new_id("cs"),
        owner_id=owner.owner_id,
        requested_by=owner.requested_by,
        channel=channel,
        mode=mode,
        status=Status.MINTING,
        provider=account.provider if account else request.provider,
        account_id=account.account_id if account else None,
        linked_account_id=None,
        created_at=started,
        expires_at=started + timedelta(seconds=grant.expires_in),
        # It is irrelevant in an edit session.
        multiple=grant.multiple and mode is Mode.CREATE,
    )
    return _opening(runtime, owner, session, grant, rule), grant


def _question(
    owner: Owner, request: ConnectSessionRequest, channel: Channel, provider: str | None, *, has_account: bool
) -> rules.Request:
    return rules.Request(
        owner_id=owner.owner_id,
        channel=channel,
        expires_in=request.expires_in or 0,
        provider=provider,
        categories=request.categories,
        connector_profile_id=request.connector_profile_id,
        # StackOne ignores it beside an account.
        multiple=bool(request.multiple) and request.account_id is None,
        has_account=has_account,
        claims=owner.claims,
    )


async def _account_and_grant(
    runtime: Runtime,
    owner: Owner,
    request: ConnectSessionRequest,
    channel: Channel,
    known: Sequence[LinkedAccount] | None,
) -> tuple[LinkedAccount | None, Grant, str | None]:
    """Return the account to edit, if there is one, with what policy grants and the rule that grants it."""
    known = await _candidates(runtime, owner.owner_id, request, known)
    candidates = [account for account in known if not account.leaving]
    provider = candidates[0].provider if request.account_id is not None else request.provider
    question = _question(owner, request, channel, provider, has_account=bool(candidates))
    grant, rule = await _granted(runtime, owner, question)
    if known and not candidates and not grant.multiple:
        # StackOne would open the dying account for editing, and what is typed would go with it.
        raise _being_disconnected()
    if grant.multiple or not candidates:
        return None, grant, rule
    for account in candidates[:_ACCOUNTS_TRIED]:
        if await _is_owners_upstream(runtime, owner.owner_id, account.account_id):
            return account, grant, rule
    if request.account_id is not None:
        raise NotFound
    # What looked like a repair would link a new account: that needs a decision of its own.
    return None, *(await _granted(runtime, owner, replace(question, has_account=False)))


async def _granted(runtime: Runtime, owner: Owner, question: rules.Request) -> tuple[Grant, str | None]:
    decision = rules.decide(runtime.policy, question)
    if decision.grant is None:
        runtime.metrics.policy_refusals.labels(decision.rule or "").inc()
        logger.info("policy_refused", rule=decision.rule, channel=question.channel.value, owner_id=question.owner_id)
        now = runtime.clock.now()
        details = {**question.told(), "rule": decision.rule, "reason": decision.reason}
        entry = AuditEntry(Action.POLICY_REFUSED, now, owner.requested_by, owner.owner_id, details=details)
        await runtime.groups.commit(append_alone, entry)
        raise Forbidden(decision.reason)
    return decision.grant, decision.rule


async def _candidates(
    runtime: Runtime, owner_id: str, request: ConnectSessionRequest, known: Sequence[LinkedAccount] | None
) -> Sequence[LinkedAccount]:
    """Return the account that is named, or else the owner's accounts of the provider, the best to edit first."""
    if request.account_id is not None:
        return [await _named(runtime, owner_id, request.account_id, request.provider)]
    if request.provider is None:
        return []
    existing = known
    if existing is None:
        existing = await list_of_provider_for_owner(
            runtime.database, owner_id, request.provider, limit=_ACCOUNTS_CONSIDERED
        )
    # A second account would be a duplicate: offer the one that needs attention, else the newest.
    now = runtime.clock.now()
    return sorted(existing, key=lambda account: (account.needs_reauth, account.created_at or now), reverse=True)


async def _named(runtime: Runtime, owner_id: str, account_id: str, provider: str | None) -> LinkedAccount:
    """Return the owner's account of this id. Raises NotFound, or Unprocessable if it is of another provider."""
    if not possible_account_id(account_id):
        raise NotFound
    account = await get_for_owner(runtime.database, owner_id, account_id)
    if account is None:
        raise NotFound
    if provider is not None and provider.lower() != (account.provider or "").lower():
        error = FieldError("body.provider", "the account is of another provider; leave the provider out")
        raise Unprocessable(errors=[error])
    if account.leaving:
        raise _being_disconnected()
    return account


def _being_disconnected() -> BeingDisconnected:
    message = "this account is being disconnected; try again once it is gone from the list"
    return BeingDisconnected(message, retry_after=_LEAVING_RETRY_AFTER)


async def _is_owners_upstream(runtime: Runtime, owner_id: str, account_id: str) -> bool:
    """Ask StackOne whether the account still is this owner's; if not, have the store look again."""
    try:
        account = await runtime.stackone.get_account(account_id, owner_id=owner_id)
    except AccountGone:
        account = None
    if account is not None and account.owner_id == owner_id:
        return True
    async with runtime.database.transaction() as connection:
        await due.mark_due(connection, account_id, now=runtime.clock.now())
    runtime.account_due.set()
    return False


def _opening(runtime: Runtime, owner: Owner, session: Session, grant: Grant, rule: str | None) -> Opening:
    limits = runtime.settings.limits
    is_link = session.channel is Channel.AUTH_LINK
    may_make_one = session.mode is Mode.CREATE and session.provider is not None
    return Opening(
        session,
        owner.owner_name,
        most_live=limits.live_auth_links_per_owner if is_link else limits.live_sessions_per_owner,
        most_accounts=grant.max_accounts_per_provider if may_make_one else None,
        rule=rule,
        categories=[category.value for category in grant.categories] if grant.categories else None,
    )


async def _open_at_stackone(runtime: Runtime, session_id: str, request: OwnedConnectSessionRequest) -> ConnectSession:
    try:
        opened = await runtime.stackone.create_connect_session(request)
    except AppError as error:
        await runtime.groups.commit(close_minting, Closing(session_id, Status.FAILED))
        if isinstance(error, Unprocessable):
            raise await _at_its_field(runtime, request, error) from error
        raise
    await runtime.groups.commit(close_minting, Closing(session_id, Status.PENDING, opened.id))
    if unechoed := opened.unechoed(request.body()):
        async with runtime.database.transaction() as connection:
            for name in unechoed:
                # To the hour, for doctor: the row is not written at every mint.
                await raise_counter(connection, f"{UNECHOED}{name}", int(runtime.clock.now().timestamp() // 3600))
    return opened


async def _at_its_field(runtime: Runtime, request: OwnedConnectSessionRequest, refusal: Unprocessable) -> Unprocessable:
    """Name the field that StackOne did not accept, where its auth configs tell which; its own words are in the log."""
    asked = request.request
    configs = await runtime.auth_configs.known()
    if configs is None:
        return refusal
    of_provider = [config for config in configs if config.provider == asked.provider]
    enabled = [config for config in configs if config.enabled]
    offered = {category for config in enabled for category in config.categories}
    if asked.provider is not None and not of_provider:
        error = FieldError("body.provider", "the project has no such provider")
    elif asked.provider is not None and not any(config.enabled for config in of_provider):
        error = FieldError("body.provider", "the provider is not enabled in the project")
    elif asked.connector_profile_id not in {None, *(config.id for config in of_provider or configs)}:
        error = FieldError("body.connector_profile_id", "the project has no such connector profile for this provider")
    elif asked.categories and not {category.value for category in asked.categories} & offered:
        error = FieldError("body.categories", "no enabled provider of the project is of these categories")
    else:
        return refusal
    return Unprocessable(errors=[error])
