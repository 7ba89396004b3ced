"""End: a session or auth link that is no longer wanted is neither counted nor credited from now on.

StackOne has no way to revoke one: until it expires there, whoever has the token or the link can still link an account.
"""

import structlog

from app.audit.entries import Action, AuditEntry, append
from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import resolve_session
from app.connect_sessions.tables import Status
from app.runtime import Runtime

logger = structlog.get_logger(__name__)


async def end_session(runtime: Runtime, owner_id: str, session_id: str, *, actor: str) -> Session:
    """End a session of the owner's and return how it stands; one that has linked an account, or has ended, stays so.

    Raises NotFound alike for an unknown session and for somebody else's.
    """
    await resolve_session(runtime, owner_id, session_id)
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        if await ledger.record_end(connection, session_id, Status.ENDED, now):
            await append(connection, AuditEntry(Action.SESSION_ENDED, now, actor, owner_id, session_id))
    session = await resolve_session(runtime, owner_id, session_id)
    if session.status is Status.ENDED:
        logger.info("connect_session_ended", session_id=session_id, channel=session.channel.value, actor=actor)
    return session
