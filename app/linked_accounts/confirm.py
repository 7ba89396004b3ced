"""Confirm: the browser says that it linked an account; StackOne says whether that is so."""

import re

import structlog

from app.clock import Clock
from app.db.database import Database
from app.errors import NotFound
from app.identity.caller import EndUser
from app.linked_accounts.apply import Reading, apply_readings
from app.linked_accounts.changes import Source
from app.linked_accounts.store import LinkedAccount, get_for_owner, take_read_ticket
from app.metrics import Metrics
from app.stackone.client import AccountGone, StackOneClient
from app.stackone.models import Account

logger = structlog.get_logger(__name__)

# StackOne's ids are digits or nanoids. Anything else cannot exist, so it is not worth a call, and it never gets near
# the path of one.
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


def possible_account_id(account_id: str) -> bool:
    """Tell whether StackOne could have given out this id."""
    return _ACCOUNT_ID.fullmatch(account_id) is not None


async def confirm_account(
    user: EndUser,
    account_id: str,
    *,
    database: Database,
    stackone: StackOneClient,
    clock: Clock,
    metrics: Metrics,
    project_id: str | None,
) -> LinkedAccount:
    """Read an account at StackOne and store it, if it is the caller's.

    The id is a hint from a browser. Raises NotFound alike for an unknown account and for somebody else's: both cost
    one read at StackOne and write nothing. Raises Unavailable when StackOne is away.
    """
    if not possible_account_id(account_id):
        raise NotFound
    async with database.transaction() as connection:
        ticket = await take_read_ticket(connection)
        known = await get_for_owner(connection, user.owner_id, account_id)
    account: Account | None
    try:
        account = await stackone.get_account(account_id)
    except AccountGone:
        account = None
    is_callers = account is not None and account.owner_id == user.owner_id and _in_project(account, project_id)
    if not is_callers and known is None:
        if account is not None:
            logger.warning("foreign_account_refused", actor=user.actor, account_id=account_id)
        raise NotFound
    # What the caller had and has no more (deleted, or moved to another owner) is news as well.
    reading = Reading(account_id, account, ticket)
    now = clock.now()
    async with database.transaction() as connection:
        await apply_readings(connection, [reading], source=Source.CONFIRM, actor=user.actor, now=now, metrics=metrics)
    async with database.reading() as connection:
        stored = await get_for_owner(connection, user.owner_id, account_id)
    if stored is None:
        raise NotFound
    return stored


def _in_project(account: Account, project_id: str | None) -> bool:
    return project_id is None or account.project_id is None or account.project_id == project_id
