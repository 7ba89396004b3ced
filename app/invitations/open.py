"""Open: the invited user has signed in, and gets a connect session at that moment.

Whoever holds the link without being invited learns nothing, not even that there is such an invitation.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from app.audit.entries import Action, AuditEntry, append_alone
from app.connect_sessions.end import end_session
from app.connect_sessions.mint import Minted, mint
from app.connect_sessions.resolve import resolve_session
from app.errors import AlreadyLinked, InvitationOver, NotFound
from app.identity.caller import EndUser
from app.identity.invitation_codes import opened_by, read_repair_id
from app.invitations import store
from app.invitations.store import Invitation, Standing
from app.linked_accounts.store import get_for_any_owner
from app.policy.rules import Channel
from app.runtime import Runtime
from app.stackone.models import ConnectSessionRequest

logger = structlog.get_logger(__name__)

_SESSIONS_CONSIDERED = 20
_LEAST_LIFE = timedelta(hours=1)


@dataclass(frozen=True)
class Opened:
    """The session that an invitation opened."""

    minted: Minted
    invitation: Invitation


async def open_invitation(runtime: Runtime, user: EndUser, code: str) -> Opened:
    """Open the session that a user is invited to; it may be opened again until an account is linked.

    Raises NotFound for every code that is not this user's to open; AlreadyLinked and InvitationOver tell the invited
    user why it opens nothing any more; else as `mint` does, policy included.
    """
    invitation = await _invited(runtime, user, code)
    invitation = await follow(runtime, invitation)
    standing = invitation.standing(runtime.clock.now())
    if standing is Standing.LINKED:
        raise AlreadyLinked
    if standing not in store.LIVE:
        raise InvitationOver
    request = ConnectSessionRequest(provider=invitation.provider, account_id=invitation.account_id)
    try:
        minted = await mint(runtime, user.owner, request, Channel.BROWSER)
    except NotFound:
        message = "the account that it was for is gone"
        raise InvitationOver(message) from None
    if read_repair_id(invitation.id) is None:
        # Before the token leaves: an account that is linked with it must find its way back to the invitation.
        async with runtime.database.transaction() as connection:
            now = runtime.clock.now()
            earlier = await store.open_sessions(
                connection, invitation.id, most=_SESSIONS_CONSIDERED, opened_by=user.actor
            )
            await store.record_opening(connection, invitation, minted.id, opened_by=user.actor, now=now)
        # A page that is reloaded opens it anew: an account that fits two sessions of one user is credited to neither.
        for session_id in earlier:
            await end_session(runtime, invitation.owner_id, session_id, actor=user.actor)
    logger.info("invitation_opened", invitation_id=invitation.id, session_id=minted.id, actor=user.actor)
    return Opened(minted, invitation)


async def follow(runtime: Runtime, invitation: Invitation) -> Invitation:
    """Return an invitation as its sessions stand now, and write down if one of them linked an account."""
    if invitation.linked_at is not None or read_repair_id(invitation.id) is not None:
        return invitation
    async with runtime.database.reading() as connection:
        sessions = await store.open_sessions(connection, invitation.id, most=_SESSIONS_CONSIDERED)
    for session_id in sessions:
        await resolve_session(runtime, invitation.owner_id, session_id)
    async with runtime.database.transaction() as connection:
        await store.record_links(connection, store.is_one(invitation.id), limit=_SESSIONS_CONSIDERED)
        found = await store.get_for_owner(connection, invitation.owner_id, invitation.id)
    return found or replace(invitation, ended_at=runtime.clock.now())


async def _invited(runtime: Runtime, user: EndUser, code: str) -> Invitation:
    """Return the invitation that a code opens for a user. Raises NotFound, for whichever reason."""
    invitation_id = opened_by(runtime.settings.invitations.secrets, code)
    if invitation_id is None:
        raise await _refused(runtime, "code", user)
    invitation = await _find(runtime, invitation_id)
    if invitation is None:
        raise await _refused(runtime, "unknown", user)
    if invitation.owner_id != user.owner_id:
        raise await _refused(runtime, "owner", user)
    if invitation.username is not None and not _is_named(invitation.username, user.username):
        raise await _refused(runtime, "user", user)
    return invitation


async def _find(runtime: Runtime, invitation_id: str) -> Invitation | None:
    """Return an invitation by an id whose code is right: one that was made, or one to repair what is broken now."""
    repair = read_repair_id(invitation_id)
    if repair is None:
        async with runtime.database.reading() as connection:
            return await store.get_of_any_owner(connection, invitation_id)
    account_id, since = repair
    account = await get_for_any_owner(runtime.database, account_id)
    if account is None or account.owner_id is None:
        return None
    broken_since = account.needs_reauth_since
    is_over = broken_since is None or int(broken_since.timestamp() * 1000) != since
    now = runtime.clock.now()
    return Invitation(
        id=invitation_id,
        owner_id=account.owner_id,
        requested_by="broker",
        provider=None,
        account_id=account_id,
        username=account.username,
        return_url=None,
        created_at=broken_since or now,
        expires_at=now if is_over else now + _LEAST_LIFE,
    )


def _is_named(invited: str, username: str | None) -> bool:
    """Compare user names as people write them: an address has no case."""
    return username is not None and invited.casefold() == username.casefold()


async def _refused(runtime: Runtime, why: str, user: EndUser) -> NotFound:
    logger.info("invitation_refused", reason=why, actor=user.actor)
    # Whichever the reason is, so that the time it takes tells nothing.
    entry = AuditEntry(
        Action.INVITATION_REFUSED, runtime.clock.now(), user.actor, user.owner_id, details={"reason": why}
    )
    await runtime.groups.commit(append_alone, entry)
    return NotFound()
