"""Confirm: the browser says that it linked an account; StackOne says whether that is so."""

import structlog

from app.errors import NotFound
from app.identity.caller import Owner
from app.linked_accounts.apply import apply_observation
from app.linked_accounts.changes import Source
from app.linked_accounts.decide import Observation
from app.linked_accounts.store import LinkedAccount, take_ticket_for
from app.runtime import Runtime
from app.stackone.client import AnotherProject
from app.stackone.models import Account, AccountGone, possible_account_id

logger = structlog.get_logger(__name__)


async def confirm_account(runtime: Runtime, owner: Owner, account_id: str) -> LinkedAccount:
    """Read an account at StackOne and store it, if it is the owner's.

    The id is a hint, from a browser for example. Raises NotFound alike for an unknown account and for somebody else's:
    both cost one read at StackOne and write nothing. Raises Unavailable when StackOne is away.
    """
    if not possible_account_id(account_id):
        raise NotFound
    ticket, seen = await take_ticket_for(runtime.database, account_id)
    is_known = seen.row.is_visible and seen.row.owner_id == owner.owner_id
    if not is_known and runtime.unknown_ids.has(owner.owner_id, account_id):
        raise NotFound
    account: Account | None
    try:
        account = await runtime.stackone.get_account(account_id, owner_id=owner.owner_id)
    except AccountGone:
        account = None
    except AnotherProject:
        if is_known:
            raise
        account = None
    is_owners = account is not None and account.owner_id == owner.owner_id
    if not is_owners and not is_known:
        if account is not None:
            logger.warning("foreign_account_refused", actor=owner.requested_by, account_id=account_id)
        # Both alike: whether a repeat is asked upstream must not tell one from the other.
        runtime.unknown_ids.add(owner.owner_id, account_id)
        raise NotFound
    # What the owner had and has no more (deleted, or moved to another owner) is news as well.
    observation = Observation(account_id, account, ticket, confirmed_by=owner.requested_by if is_owners else None)
    applied = await apply_observation(runtime, seen, observation, source=Source.CONFIRM, actor=owner.requested_by)
    stored = applied.row
    # One "no such account" removes nothing, but it confirms nothing either.
    if account is None or stored is None or not stored.is_visible or stored.owner_id != owner.owner_id:
        raise NotFound
    return stored
