"""Invite: make a link that opens a connect session for the right user of an owner, once that user has signed in."""

from dataclasses import dataclass
from datetime import timedelta

import structlog

from app.errors import FieldError, NotConfigured, NotFound, Unprocessable
from app.invitations import store
from app.invitations.store import Invitation
from app.linked_accounts.store import get_for_owner
from app.runtime import Runtime
from app.settings import browser_origin
from app.stackone.models import possible_account_id

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class InvitationRequest:
    """What a service asks for: what to link, whom to invite, for how long, and where to go on afterwards."""

    provider: str | None = None
    account_id: str | None = None
    username: str | None = None
    expires_in: int | None = None
    return_url: str | None = None


async def invite(runtime: Runtime, owner_id: str, request: InvitationRequest, *, actor: str) -> Invitation:
    """Make an invitation for users of an owner.

    Whether policy allows it is asked when somebody opens it, who then is known. Raises NotConfigured; NotFound if the
    account to re-authenticate is not the owner's; Unprocessable for an address that it may not return to;
    TooManyRequests if the owner has too many that are live.
    """
    settings = runtime.settings.invitations
    if settings.page_url is None:
        message = "invitations need BROKER_INVITATIONS__PAGE_URL and BROKER_INVITATIONS__SECRETS"
        raise NotConfigured(message)
    if request.return_url is not None:
        _require_own_origin(runtime, request.return_url)
    if request.account_id is not None:
        await _require_account(runtime, owner_id, request.account_id)
    now = runtime.clock.now()
    invitation = Invitation(
        id=runtime.new_id("inv"),
        owner_id=owner_id,
        requested_by=actor,
        provider=request.provider,
        account_id=request.account_id,
        username=request.username,
        return_url=request.return_url,
        created_at=now,
        expires_at=now + timedelta(seconds=request.expires_in or settings.expires_in_seconds),
    )
    async with runtime.database.transaction() as connection:
        most = runtime.settings.limits.live_invitations_per_owner
        await store.insert_invitation(connection, invitation, most_live=most, now=now)
    logger.info("invited", invitation_id=invitation.id, actor=actor)
    return invitation


def _require_own_origin(runtime: Runtime, url: str) -> None:
    """Raise Unprocessable unless an address is on an origin of the operator's: a link must not lead elsewhere."""
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \\")
    own = {*runtime.settings.http.allowed_origins, _origin(runtime.settings.invitations.page_url or "")}
    if not is_plain or _origin(url) not in own:
        error = FieldError("body.return_url", "must be a URL on an origin of BROKER_HTTP__ALLOWED_ORIGINS")
        raise Unprocessable(errors=[error])


def _origin(url: str) -> str | None:
    scheme, separator, rest = url.partition("://")
    host = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    try:
        return browser_origin(f"{scheme}{separator}{host}")
    except ValueError:
        return None


async def _require_account(runtime: Runtime, owner_id: str, account_id: str) -> None:
    account = await get_for_owner(runtime.database, owner_id, account_id) if possible_account_id(account_id) else None
    if account is None:
        raise NotFound
