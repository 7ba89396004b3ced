"""Owners' pinned names: the name under which StackOne knows an owner, and pinning another one on purpose."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.entries import Action, AuditEntry, append
from app.connect_sessions.ledger import count_live_sessions, lock_owner
from app.connect_sessions.tables import owners
from app.db.tables import upsert
from app.linked_accounts.store import LinkedAccount, list_for_owner
from app.runtime import Runtime

logger = structlog.get_logger(__name__)

_ACCOUNTS_SHOWN = 200


@dataclass(frozen=True)
class Pin:
    """What pinning a name did, or would do."""

    owner_id: str
    name: str
    previous_name: str | None
    dry_run: bool
    accounts_with_other_names: Sequence[LinkedAccount]
    live_sessions: int

    @property
    def changes(self) -> bool:
        """Whether the name is another one than before."""
        return self.name != self.previous_name

    def effects(self) -> Sequence[str]:
        """Say in words what it means for what is there already."""
        if not self.changes:
            return ["The owner has this name already; nothing changes."]
        effects = ["New sessions tell StackOne the new name. StackOne keys accounts by owner id, name and provider."]
        if self.accounts_with_other_names:
            effects.append(
                f"{len(self.accounts_with_other_names)} linked account(s) keep the name they were linked under;"
                " StackOne offers no rename. Where a session names the provider, the broker still opens the existing"
                " account instead of a second one."
            )
            effects.append(
                "A session without a provider leaves that to StackOne, which looks under the new name: picking a"
                " provider that is linked already makes a second account. Name the provider, or give account_id."
            )
        if self.live_sessions:
            effects.append(
                f"{self.live_sessions} session(s) that are open now still carry the old name until they end; an"
                " account linked through one is keyed by it."
            )
        return effects


async def pin_owner(runtime: Runtime, owner_id: str, name: str, *, actor: str, dry_run: bool) -> Pin:
    """Pin a name for an owner, known or not, and say what that does; a dry run only says it."""
    async with runtime.database.transaction() as connection:
        pinned = await pin(connection, owner_id, name, actor=actor, dry_run=dry_run, now=runtime.clock.now())
    if pinned.changes and not dry_run:
        logger.warning("owner_name_pinned", owner_id=owner_id, actor=actor)
    return pinned


async def pin(
    connection: AsyncConnection, owner_id: str, name: str, *, actor: str, dry_run: bool, now: datetime
) -> Pin:
    """Do what `pin_owner` does in a transaction of the caller's."""
    await lock_owner(connection, owner_id)
    accounts = await list_for_owner(connection, owner_id, limit=_ACCOUNTS_SHOWN)
    pinned = Pin(
        owner_id=owner_id,
        name=name,
        previous_name=await _pinned_name(connection, owner_id),
        dry_run=dry_run,
        accounts_with_other_names=[account for account in accounts if account.owner_name != name],
        live_sessions=await count_live_sessions(connection, owner_id, now),
    )
    if pinned.changes and not dry_run:
        values = {"owner_id": owner_id, "owner_name": name, "pinned_at": now, "pinned_by": actor}
        statement = upsert(connection, owners, values)
        await connection.execute(statement.on_conflict_do_update(index_elements=[owners.c.owner_id], set_=values))
        details = {"name": name, "previous_name": pinned.previous_name}
        await append(connection, AuditEntry(Action.OWNER_NAME_PINNED, now, actor, owner_id, details=details))
    return pinned


async def _pinned_name(connection: AsyncConnection, owner_id: str) -> str | None:
    query = sa.select(owners.c.owner_name).where(owners.c.owner_id == owner_id)
    name: str | None = (await connection.execute(query)).scalar_one_or_none()
    return name
