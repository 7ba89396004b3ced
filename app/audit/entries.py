"""Audit entries: written in the transaction of what they tell, or before a refusal leaves.

Connect sessions, invitations, changes of accounts, service keys, sweeps and erasures have rows of their own that name
who did it. Here is the rest; `app/trail.py` reads all of it together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.tables import audit_entries
from app.db.database import Database

_A = audit_entries.c
_ERASED_ACTOR = "user:erased"


class Action(Enum):
    """What was done, or was refused."""

    POLICY_REFUSED = "policy.refused"
    INVITATION_REFUSED = "invitation.refused"
    SESSION_ENDED = "session.ended"
    USER_TOKEN_ISSUED = "user_token.issued"  # noqa: S105  a kind, not a token
    USER_TOKENS_REVOKED = "user_tokens.revoked"
    OWNER_NAME_PINNED = "owner.name_pinned"
    ACCOUNT_PINNED = "account.pinned"
    ACCOUNT_UNPINNED = "account.unpinned"


@dataclass(frozen=True)
class AuditEntry:
    """One entry; nothing in it may be a secret."""

    action: Action
    at: datetime
    actor: str
    owner_id: str | None
    subject: str | None = None
    """The id of what it was done to."""
    details: Mapping[str, Any] | None = None


async def append(connection: AsyncConnection, *entries: AuditEntry) -> None:
    """Write entries down in the transaction of what they tell."""
    await connection.execute(
        sa.insert(audit_entries),
        [
            {
                "at": entry.at,
                "kind": entry.action.value,
                "actor": entry.actor,
                "owner_id": entry.owner_id,
                "subject": entry.subject,
                "details": dict(entry.details) if entry.details else None,
            }
            for entry in entries
        ],
    )


async def append_alone(database: Database, entries: Sequence[AuditEntry]) -> Sequence[None]:
    """Write entries down that belong to no other transaction: refusals; a group commit."""
    async with database.transaction() as connection:
        await append(connection, *entries)
    return [None] * len(entries)


async def forget_entries(connection: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Remove entries that are older than a moment; return how many."""
    old = sa.select(_A.id).where(_A.at < before).order_by(_A.at).limit(limit)
    result = await connection.execute(sa.delete(audit_entries).where(_A.id.in_(old)))
    return result.rowcount


async def erase_of_owner(connection: AsyncConnection, owner_id: str, *, stand_in: str) -> None:
    """Clear what is personal in an owner's entries; `stand_in` takes the place of its id."""
    await connection.execute(
        sa.update(audit_entries)
        .where(_A.owner_id == owner_id)
        .values(
            owner_id=stand_in,
            subject=None,
            details=None,
            actor=sa.case((_A.actor.startswith("user:"), _ERASED_ACTOR), else_=_A.actor),
        )
    )
