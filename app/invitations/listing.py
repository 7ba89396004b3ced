"""Invitations as the backends see them that sent them: the list, one of them, and its end."""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from app.connect_sessions.resolve import GRACE
from app.db.leases import Lease, held
from app.errors import NotFound
from app.inputs import LONGEST_LIFE
from app.invitations import store
from app.invitations.open import follow
from app.invitations.queries import InvitationsQuery
from app.invitations.store import Invitation
from app.runtime import Runtime

logger = structlog.get_logger(__name__)

_BATCH = 500


async def list_invitations(
    runtime: Runtime, owner_id: str, query: InvitationsQuery
) -> tuple[Sequence[Invitation], bool]:
    """Return a page of an owner's invitations, the newest first, and whether there are more."""
    async with runtime.database.transaction() as connection:
        await store.record_links(connection, store.is_owners(owner_id), limit=_BATCH)
        now = runtime.clock.now()
        found = await store.list_for_owner(connection, owner_id, query, now=now, limit=query.limit + 1)
    return found[: query.limit], len(found) > query.limit


async def get_invitation(runtime: Runtime, owner_id: str, invitation_id: str) -> Invitation:
    """Return an invitation of the owner's as it stands now. Raises NotFound."""
    async with runtime.database.reading() as connection:
        found = await store.get_for_owner(connection, owner_id, invitation_id)
    if found is None:
        raise NotFound
    return await follow(runtime, found)


async def end_invitation(runtime: Runtime, owner_id: str, invitation_id: str, *, actor: str) -> Invitation:
    """End an invitation: it opens nothing from now on. One that is over already stays as it is. Raises NotFound.

    A session that it opened before goes on until it ends: StackOne has no way to revoke one.
    """
    await get_invitation(runtime, owner_id, invitation_id)
    async with runtime.database.transaction() as connection:
        await store.record_end(connection, invitation_id, actor=actor, now=runtime.clock.now())
    logger.info("invitation_ended", invitation_id=invitation_id, actor=actor)
    return await get_invitation(runtime, owner_id, invitation_id)


async def record_linked_invitations(runtime: Runtime, lease: Lease) -> None:
    """Write down which invitations led to an account. Raises LeaseLost."""
    more = True
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            # A session may be opened in an invitation's last moment, and live as long as sessions do.
            still_open = store.expires_after(runtime.clock.now() - timedelta(seconds=LONGEST_LIFE) - 2 * GRACE)
            more = await store.record_links(connection, still_open, limit=_BATCH) == _BATCH


async def forget_old_invitations(runtime: Runtime, lease: Lease) -> None:
    """Remove invitations that are older than their retention. Raises LeaseLost."""
    retention = timedelta(days=runtime.settings.invitations.retention_days)
    more = True
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            before = runtime.clock.now() - retention
            more = await store.forget_invitations(connection, before=before, limit=_BATCH) == _BATCH
