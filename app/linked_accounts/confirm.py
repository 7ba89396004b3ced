"""Confirm: the browser says that it linked an account; StackOne says whether that is so."""

import structlog

from app.errors import NotFound
from app.identity.caller import EndUser
from app.linked_accounts.apply import Observation, apply_observations
from app.linked_accounts.changes import Source
from app.linked_accounts.store import LinkedAccount, get_for_owner, take_read_ticket
from app.runtime import Runtime
from app.stackone.models import Account, AccountGone, possible_account_id

logger = structlog.get_logger(__name__)


async def confirm_account(runtime: Runtime, user: EndUser, account_id: str) -> LinkedAccount:
    """Read an account at StackOne and store it, if it is the caller's.

    The id is a hint from a browser. Raises NotFound alike for an unknown account and for somebody else's: both cost
    one read at StackOne and write nothing. Raises Unavailable when StackOne is away.
    """
    if not possible_account_id(account_id):
        raise NotFound
    async with runtime.database.transaction() as connection:
        ticket = await take_read_ticket(connection)
        known = await get_for_owner(connection, user.owner_id, account_id)
    if known is None and runtime.unknown_ids.has(user.owner_id, account_id):
        raise NotFound
    account: Account | None
    try:
        account = await runtime.stackone.get_account(account_id, owner_id=user.owner_id)
    except AccountGone:
        account = None
    project_id = runtime.settings.stackone.project_id
    is_callers = account is not None and account.owner_id == user.owner_id and _in_project(account, project_id)
    if not is_callers and known is None:
        if account is not None:
            logger.warning("foreign_account_refused", actor=user.actor, account_id=account_id)
        # Both alike: whether a repeat is asked upstream must not tell one from the other.
        runtime.unknown_ids.add(user.owner_id, account_id)
        raise NotFound
    # What the caller had and has no more (deleted, or moved to another owner) is news as well.
    observation = Observation(account_id, account, ticket)
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        await apply_observations(
            connection,
            [observation],
            source=Source.CONFIRM,
            actor=user.actor,
            now=now,
            metrics=runtime.metrics,
            settings=runtime.settings.sync,
        )
    async with runtime.database.reading() as connection:
        stored = await get_for_owner(connection, user.owner_id, account_id)
    # One "no such account" removes nothing, but it confirms nothing either.
    if stored is None or account is None:
        raise NotFound
    return stored


def _in_project(account: Account, project_id: str | None) -> bool:
    return project_id is None or account.project_id is None or account.project_id == project_id
