"""Pins: which of several accounts of a provider an owner, or one of its users, has chosen."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.entries import Action, AuditEntry, append
from app.db.tables import upsert
from app.errors import NotFound
from app.invitations.tables import account_pins
from app.linked_accounts.store import get_for_owner
from app.runtime import Runtime
from app.stackone.models import possible_account_id

_P = account_pins.c
_WHOLE_OWNER = ""


async def pin_account(
    runtime: Runtime, owner_id: str, provider: str, account_id: str | None, *, username: str | None, actor: str
) -> None:
    """Pin one of the owner's accounts of a provider, for one user or for the whole owner; None takes the pin away.

    Raises NotFound for an account that is not the owner's, is of another provider, or is about to go.
    """
    if account_id is not None:
        possible = possible_account_id(account_id)
        account = await get_for_owner(runtime.database, owner_id, account_id) if possible else None
        if account is None or account.leaving or (account.provider or "").lower() != provider.lower():
            raise NotFound
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        if account_id is None:
            await _unpin(connection, owner_id, provider, username)
        else:
            await _pin(connection, owner_id, provider, username, account_id, actor=actor, now=now)
        action = Action.ACCOUNT_UNPINNED if account_id is None else Action.ACCOUNT_PINNED
        details = {"provider": provider, "user": username}
        await append(connection, AuditEntry(action, now, actor, owner_id, account_id, details))


async def pinned_for(connection: AsyncConnection, owner_id: str, provider: str, username: str | None) -> str | None:
    """Return the account that a user has pinned, or else the owner."""
    query = (
        sa.select(_P.account_id)
        .where(
            _P.owner_id == owner_id,
            _P.provider == provider.lower(),
            _P.username.in_({_WHOLE_OWNER, username or _WHOLE_OWNER}),
        )
        .order_by(_P.username.desc())
        .limit(1)
    )
    found = (await connection.execute(query)).scalar_one_or_none()
    return str(found) if found is not None else None


async def _pin(
    connection: AsyncConnection,
    owner_id: str,
    provider: str,
    username: str | None,
    account_id: str,
    *,
    actor: str,
    now: datetime,
) -> None:
    pinned = {"account_id": account_id, "pinned_at": now, "pinned_by": actor}
    key = {"owner_id": owner_id, "provider": provider.lower(), "username": username or _WHOLE_OWNER}
    statement = upsert(connection, account_pins, {**key, **pinned})
    await connection.execute(statement.on_conflict_do_update(index_elements=[_P[name] for name in key], set_=pinned))


async def _unpin(connection: AsyncConnection, owner_id: str, provider: str, username: str | None) -> None:
    await connection.execute(
        sa.delete(account_pins).where(
            _P.owner_id == owner_id, _P.provider == provider.lower(), _P.username == (username or _WHOLE_OWNER)
        )
    )
