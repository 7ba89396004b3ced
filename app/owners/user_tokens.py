"""User tokens: a backend that has signed a user in has the broker make a token for the user's browser."""

from dataclasses import dataclass
from datetime import datetime

import structlog

from app.audit.entries import Action, AuditEntry, append
from app.errors import NotConfigured
from app.identity.caller import Service
from app.identity.user_tokens.revocations import revocations_so_far, revoke
from app.identity.user_tokens.tokens import UserToken, UserTokenRequest, make_user_token
from app.limits import Rate
from app.runtime import Runtime

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Revocation:
    """All user tokens of an owner, or of one of its users, that were made before a moment have ended."""

    owner_id: str
    user: str | None
    not_before: datetime


async def issue_user_token(runtime: Runtime, caller: Service, owner_id: str, request: UserTokenRequest) -> UserToken:
    """Make a token with which a browser is this user of this owner, on browser routes only.

    Raises NotConfigured without a secret to sign with; TooManyRequests if the credential has had too many made.
    """
    if not runtime.settings.user_tokens.secrets:
        message = "user tokens need BROKER_USER_TOKENS__SECRETS"
        raise NotConfigured(message)
    await runtime.limiter.take(Rate.USER_TOKENS_PER_SERVICE, caller.kind.value, caller.credential_id)
    now, token_id = runtime.clock.now(), runtime.new_id("ut")
    # Written down before the token leaves, as a connect session is.
    async with runtime.database.transaction() as connection:
        as_of = await revocations_so_far(connection)
        token = make_user_token(
            runtime.settings.user_tokens, owner_id, request, token_id=token_id, as_of=as_of, now=now
        )
        details = {"user": request.user, "expires_in": token.expires_in}
        await append(connection, AuditEntry(Action.USER_TOKEN_ISSUED, now, caller.actor, owner_id, token_id, details))
    runtime.metrics.user_tokens.inc()
    logger.info(
        "user_token_issued",
        token_id=token.id,
        owner_id=owner_id,
        user=request.user,
        actor=caller.actor,
        expires_in=token.expires_in,
    )
    return token


async def revoke_user_tokens(runtime: Runtime, owner_id: str, user: str | None, *, actor: str) -> Revocation:
    """End the user tokens of an owner, or of one of its users, that were made before now.

    Every process knows within 5 seconds, this one at once.
    """
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        await revoke(connection, owner_id, user, actor=actor, now=now)
        details = {"user": user} if user is not None else None
        await append(connection, AuditEntry(Action.USER_TOKENS_REVOKED, now, actor, owner_id, details=details))
    runtime.authenticator.look_for_revocations()
    logger.info("user_tokens_revoked", owner_id=owner_id, user=user, actor=actor)
    return Revocation(owner_id, user, now)
