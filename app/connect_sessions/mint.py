"""Mint: from a verified caller and a wish to a connect-session token.

Whose session it is comes in as an `Owner`, built from claims or from a service's path, never from a body. No
transaction is open while StackOne is asked; the ledger row is written before and completed before the token leaves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import SecretStr

from app.clock import Clock
from app.connect_sessions import ledger
from app.connect_sessions.ledger import Mode
from app.connect_sessions.quotas import lock_owner, require_room_for_account, require_room_for_session
from app.db.database import Database
from app.errors import AppError, FieldError, Forbidden, NotFound, Unprocessable
from app.linked_accounts import due
from app.linked_accounts.queries import AccountsQuery
from app.linked_accounts.store import LinkedAccount, get_for_owner, list_for_owner
from app.metrics import Metrics
from app.policy.rules import Channel, Grant, Policy, Request, decide
from app.stackone.client import StackOneClient
from app.stackone.models import AccountGone, ConnectSession, ConnectSessionRequest, possible_account_id

logger = structlog.get_logger(__name__)

_ACCOUNTS_CONSIDERED = 100
# Accounts that StackOne is asked about to find one to edit; the store knows better nearly always.
_ACCOUNTS_TRIED = 3


@dataclass(frozen=True)
class Owner:
    """For whom a session is, and who asks for it; everything here is verified."""

    owner_id: str
    owner_name: str
    username: str | None
    requested_by: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class MintedSession:
    """A session whose ledger row is committed."""

    id: str
    token: SecretStr
    auth_link_url: SecretStr
    expires_at: datetime
    expires_in: int
    mode: Mode
    account_id: str | None
    provider: str | None
    owner_name: str


@dataclass(frozen=True)
class _Plan:
    """What policy and the owner's accounts make of a wish."""

    target: LinkedAccount | None
    provider: str | None
    grant: Grant
    rule: str | None


@dataclass(frozen=True)
class Minter:
    """What minting needs, shared by all requests of a process."""

    database: Database
    stackone: StackOneClient
    policy: Policy
    live_sessions_per_owner: int
    clock: Clock
    metrics: Metrics
    new_id: Callable[[str], str]

    async def mint(
        self, wish: ConnectSessionRequest, owner: Owner, *, channel: Channel, expires_in: int
    ) -> MintedSession:
        """Open a session for `owner`; `expires_in` is in seconds, and policy may shorten it.

        Raises NotFound if `wish.account_id` is not an account of the owner, in our store and at StackOne alike;
        Forbidden if policy does not allow the wish; TooManyRequests if the owner has too many sessions open;
        Unavailable or UpstreamRejected as StackOne answers.
        """
        plan = await self._plan(wish, owner, channel, expires_in)
        session_id = self.new_id("cs")
        started = self.clock.now()
        expires_at = started + timedelta(seconds=plan.grant.expires_in)
        wish = replace(
            wish,
            origin_owner_id=owner.owner_id,
            origin_username=owner.username,
            account_id=plan.target.account_id if plan.target else None,
            provider=plan.provider,
            categories=plan.grant.categories,
            # It is irrelevant in an edit session, and StackOne's default otherwise.
            multiple=True if plan.grant.multiple and plan.target is None else None,
            expires_in=plan.grant.expires_in,
        )
        wish = await self._write_down(session_id, wish, plan, owner, channel, started, expires_at)
        session = await self._open_at_stackone(session_id, wish)
        mode: Mode = "edit" if plan.target else "create"
        self.metrics.sessions.labels(channel, mode).inc()
        logger.info(
            "connect_session_minted",
            session_id=session_id,
            channel=channel,
            mode=mode,
            actor=owner.requested_by,
            rule=plan.rule,
        )
        return MintedSession(
            id=session_id,
            token=session.token,
            auth_link_url=session.auth_link_url,
            expires_at=expires_at,
            expires_in=plan.grant.expires_in,
            mode=mode,
            account_id=wish.account_id,
            provider=wish.provider,
            owner_name=wish.origin_owner_name,
        )

    async def _plan(self, wish: ConnectSessionRequest, owner: Owner, channel: Channel, expires_in: int) -> _Plan:
        """Find the account that this has to be an edit session for, if any, and have policy decide."""
        candidates = await self._candidates(wish, owner)
        provider = candidates[0].provider if wish.account_id is not None else wish.provider
        asked = Request(
            owner_id=owner.owner_id,
            channel=channel,
            expires_in=expires_in,
            provider=provider,
            categories=wish.categories,
            connector_profile_id=wish.connector_profile_id,
            # StackOne ignores it beside an account.
            multiple=bool(wish.multiple) and wish.account_id is None,
            has_account=bool(candidates),
            claims=owner.claims,
        )
        grant, rule = self._decided(asked)
        if grant.multiple or not candidates:
            return _Plan(None, provider, grant, rule)
        for account in candidates[:_ACCOUNTS_TRIED]:
            if await self._is_owners_upstream(account.account_id, owner):
                return _Plan(account, provider, grant, rule)
        if wish.account_id is not None:
            raise NotFound
        # What looked like a repair would link something new.
        grant, rule = self._decided(replace(asked, has_account=False))
        return _Plan(None, provider, grant, rule)

    def _decided(self, asked: Request) -> tuple[Grant, str | None]:
        decision = decide(self.policy, asked)
        if decision.grant is None:
            self.metrics.policy_refusals.labels(decision.rule or "").inc()
            logger.info("policy_refused", rule=decision.rule, channel=asked.channel, owner_id=asked.owner_id)
            raise Forbidden(decision.reason)
        return decision.grant, decision.rule

    async def _candidates(self, wish: ConnectSessionRequest, owner: Owner) -> Sequence[LinkedAccount]:
        """Return the account that is named, or else the owner's accounts of the provider, the best to edit first."""
        if wish.account_id is None and wish.provider is None:
            return []
        async with self.database.reading() as connection:
            if wish.account_id is not None:
                if not possible_account_id(wish.account_id):
                    raise NotFound
                found = await get_for_owner(connection, owner.owner_id, wish.account_id)
                if found is None:
                    raise NotFound
                if wish.provider not in {None, found.provider}:
                    error = FieldError("body.provider", "the account is of another provider; leave the provider out")
                    raise Unprocessable(errors=[error])
                return [found]
            existing = await list_for_owner(
                connection, owner.owner_id, AccountsQuery(provider=[str(wish.provider)]), limit=_ACCOUNTS_CONSIDERED
            )
        # A second account would be a duplicate: offer the one that needs attention, else the newest.
        now = self.clock.now()
        existing.sort(key=lambda account: (account.needs_reauth, account.created_at or now), reverse=True)
        return existing

    async def _is_owners_upstream(self, account_id: str, owner: Owner) -> bool:
        """Ask StackOne whether the account still is this owner's; if not, have the store look again."""
        try:
            account = await self.stackone.get_account(account_id)
        except AccountGone:
            account = None
        if account is not None and account.owner_id == owner.owner_id:
            return True
        async with self.database.transaction() as connection:
            await due.mark_due(connection, account_id, now=self.clock.now())
        return False

    async def _write_down(
        self,
        session_id: str,
        wish: ConnectSessionRequest,
        plan: _Plan,
        owner: Owner,
        channel: Channel,
        started: datetime,
        expires_at: datetime,
    ) -> ConnectSessionRequest:
        """Pin the owner's name, hold the quotas, write the session down, all or nothing; return the whole request."""
        most_accounts = plan.grant.max_accounts_per_provider
        async with self.database.transaction() as connection:
            name = await ledger.pin_owner_name(
                connection, owner.owner_id, owner.owner_name, actor=owner.requested_by, now=started
            )
            await lock_owner(connection, owner.owner_id)
            await require_room_for_session(connection, owner.owner_id, most=self.live_sessions_per_owner, now=started)
            if plan.target is None and wish.provider is not None and most_accounts is not None:
                await require_room_for_account(
                    connection,
                    owner.owner_id,
                    wish.provider,
                    most=most_accounts,
                    multiple=bool(wish.multiple),
                    now=started,
                    rule=plan.rule or "",
                )
            await ledger.open_session(
                connection,
                {
                    "id": session_id,
                    "owner_id": owner.owner_id,
                    "requested_by": owner.requested_by,
                    "channel": channel,
                    "mode": "edit" if plan.target else "create",
                    "status": "minting",
                    "provider": wish.provider,
                    "categories": [category.value for category in wish.categories] if wish.categories else None,
                    "account_id": wish.account_id,
                    "multiple": bool(wish.multiple),
                    "policy_rule": plan.rule,
                    "created_at": started,
                    "expires_at": expires_at,
                },
            )
        return replace(wish, origin_owner_name=name)

    async def _open_at_stackone(self, session_id: str, wish: ConnectSessionRequest) -> ConnectSession:
        try:
            session = await self.stackone.create_connect_session(wish)
        except AppError:
            async with self.database.transaction() as connection:
                await ledger.close_minting(connection, session_id, status="failed")
            raise
        async with self.database.transaction() as connection:
            await ledger.close_minting(connection, session_id, status="pending", values={"upstream_id": session.id})
        return session
