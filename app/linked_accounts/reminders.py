"""Reminders: an account that stays broken is told of again, once for each time that the settings name."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa
import structlog

from app.db.leases import Lease, held
from app.linked_accounts.changes import Change, Kind, Source
from app.linked_accounts.store import VISIBLE, LinkedAccount, append_changes, columns, from_row
from app.linked_accounts.tables import linked_accounts
from app.runtime import Runtime

logger = structlog.get_logger(__name__)

_C = linked_accounts.c
_BATCH: Final = 200
# Every reminder has been given.
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


async def remind(runtime: Runtime, lease: Lease) -> None:
    """Tell of every account whose next reminder is due. Raises LeaseLost."""
    after = runtime.settings.repair.remind_after
    more = bool(after)
    while more:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
            now = runtime.clock.now()
            due = (
                sa.select(*columns())
                .where(
                    _C.needs_reauth_since.is_not(None),
                    _C.disconnect_requested_at.is_(None),
                    VISIBLE,
                    sa.or_(_C.remind_at.is_(None), _C.remind_at <= now),
                )
                .order_by(_C.needs_reauth_since, _C.account_id)
                .limit(_BATCH)
                # One that is being read right now comes up again in the next round.
                .with_for_update(skip_locked=True)
            )
            accounts = [from_row(row) for row in await connection.execute(due)]
            reminders: list[Change] = []
            for account in accounts:
                is_due, next_at = next_reminder(account, after, now)
                reminders += [_reminder(account, now)] if is_due else []
                await connection.execute(
                    sa.update(linked_accounts)
                    .where(_C.account_id == account.account_id)
                    .values(remind_at=next_at or _NEVER)
                )
            await append_changes(connection, reminders, source=Source.REMINDER, actor="broker", now=now)
        if reminders:
            runtime.metrics.reminders.inc(len(reminders))
            logger.info("accounts_still_broken", accounts=len(reminders))
        more = len(accounts) == _BATCH


def next_reminder(account: LinkedAccount, after: Sequence[timedelta], now: datetime) -> tuple[bool, datetime | None]:
    """Say whether a broken account is to be told of now, and when next; None: never again. Pure.

    However many reminders were missed while nothing ran, it is one.
    """
    since = account.needs_reauth_since or now
    is_due = since + after[0] <= now if account.remind_at is None else account.remind_at <= now
    coming = (since + wait for wait in after if since + wait > now)
    return is_due, next(coming, None)


def _reminder(account: LinkedAccount, now: datetime) -> Change:
    since = account.needs_reauth_since or now
    told = {"status": account.status, "since": since.isoformat(), "days": (now - since).days}
    return Change(Kind.STILL_BROKEN, account.account_id, account.owner_id, account.provider, told)
