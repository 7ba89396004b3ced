"""Disconnect: an owner gives an account up. Written down first, then deleted at StackOne, then a tombstone.

The wish is a mark on the account's row, so it outlives the process: whatever interrupts it here, the loop over due rows
carries it on. StackOne has no conditional delete; the account's owner is therefore read again right before it, and a
wish whose owner has lost the account meanwhile is dropped instead of being carried out on somebody else's account.
"""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import Clock
from app.db.database import Database
from app.errors import AppError, NotFound
from app.linked_accounts import due
from app.linked_accounts.apply import Reading, apply_readings
from app.linked_accounts.changes import Change, Kind, Source, append_changes
from app.linked_accounts.due import Claim
from app.linked_accounts.store import LinkedAccount, columns, from_row, take_read_ticket
from app.linked_accounts.tables import linked_accounts
from app.metrics import Metrics
from app.settings import SyncSettings
from app.stackone.budget import Use
from app.stackone.client import AccountGone, StackOneClient
from app.stackone.models import Account

logger = structlog.get_logger(__name__)

_C = linked_accounts.c


@dataclass(frozen=True)
class Disconnector:
    """What disconnecting needs, shared by the routes and the loop over due rows."""

    database: Database
    stackone: StackOneClient
    clock: Clock
    metrics: Metrics
    settings: SyncSettings
    jitter: random.Random = field(default_factory=random.Random)

    async def disconnect(
        self, account_id: str, *, owner_ids: frozenset[str] | None, actor: str, use: Use = Use.INTERACTIVE
    ) -> LinkedAccount | None:
        """Disconnect an account of one of these owners (None: of any); return it if StackOne is yet to confirm.

        Safe to repeat: an account that is gone already is a success for the owner who had it. Raises NotFound alike
        for an unknown account and for one of other owners.
        """
        now = self.clock.now()
        async with self.database.transaction() as connection:
            row = await _locked(connection, account_id)
            if row is None or row.verified_at is None or (owner_ids is not None and row.owner_id not in owner_ids):
                raise NotFound
            if row.deleted_at is not None:
                return None
            claim = await request_disconnect(
                connection, row, actor=actor, now=now, claim_for=timedelta(seconds=self.settings.claim_seconds)
            )
        outcome = await self.carry_out(claim, use=use)
        if outcome == "lost":
            raise NotFound
        if outcome == "gone":
            return None
        async with self.database.reading() as connection:
            found = (await connection.execute(sa.select(*columns()).where(_C.account_id == account_id))).one()
        account = from_row(found)
        return account if account.deleted_at is None else None

    async def carry_out(self, claim: Claim, *, use: Use = Use.INTERACTIVE) -> str:
        """Delete a claimed account at StackOne and bury it: gone, lost (it is another owner's now) or put_off."""
        try:
            account = await self._delete_upstream(claim, use)
        except AppError as error:
            await self._put_off(claim, error)
            return "put_off"
        # Drawn after StackOne's answer: every read that may still show the account has a lower ticket and is stale.
        async with self.database.transaction() as connection:
            ticket = await take_read_ticket(connection)
        actor = claim.disconnect_requested_by or "stackone"
        reading = Reading(claim.account_id, account, ticket, claim.marks)
        async with self.database.transaction() as connection:
            decisions = await apply_readings(
                connection,
                [reading],
                source=Source.DISCONNECT,
                actor=actor,
                now=self.clock.now(),
                metrics=self.metrics,
            )
        if account is None:
            logger.info("account_disconnected", account_id=claim.account_id, actor=actor)
            return "gone"
        if decisions[claim.account_id].outcome == "behind":
            await self._put_off(claim, None)
            return "put_off"
        logger.warning("disconnect_dropped", reason="the account is another owner's now", account_id=claim.account_id)
        return "lost"

    async def _delete_upstream(self, claim: Claim, use: Use) -> Account | None:
        """Return None once StackOne has no such account, or the account if it is not the requesting owner's."""
        try:
            account = await self.stackone.get_account(claim.account_id, use=use)
            if account.owner_id != claim.owner_id:
                return account
            await self.stackone.delete_account(claim.account_id, use=use)
        except AccountGone:
            return None
        return None

    async def _put_off(self, claim: Claim, error: AppError | None) -> None:
        wait = due.wait_after(claim, error, settings=self.settings, jitter=self.jitter)
        async with self.database.transaction() as connection:
            await due.put_off(connection, claim, until=self.clock.now() + wait)
        logger.warning(
            "disconnect_put_off",
            account_id=claim.account_id,
            code=error.code if error else "behind",
            attempts=claim.attempts + 1,
        )


async def request_disconnect(
    connection: AsyncConnection, row: LinkedAccount, *, actor: str, now: datetime, claim_for: timedelta | None
) -> Claim:
    """Mark a locked row to be disconnected, and claim it for the caller if asked to; a repeat is no second event.

    Ends its transaction's work, as `append_changes` does.
    """
    by = row.disconnect_requested_by or actor
    marks = row.refresh_marks + 1
    await connection.execute(
        sa.update(linked_accounts)
        .where(_C.account_id == row.account_id)
        .values(
            disconnect_requested_at=row.disconnect_requested_at or now,
            disconnect_requested_by=by,
            refresh_due_at=now,
            refresh_marks=marks,
            claimed_until=now + claim_for if claim_for is not None else None,
        )
    )
    ticket = await take_read_ticket(connection)
    if row.disconnect_requested_at is None:
        change = Change(Kind.DISCONNECT_REQUESTED, row.account_id, row.owner_id, row.provider)
        await append_changes(connection, [change], source=Source.DISCONNECT, actor=actor, now=now)
    return Claim(row.account_id, marks, row.refresh_attempts, ticket, row.owner_id, by)


async def _locked(connection: AsyncConnection, account_id: str) -> LinkedAccount | None:
    query = sa.select(*columns()).where(_C.account_id == account_id).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return from_row(row) if row is not None else None
