"""One account, no older than the caller can bear: StackOne is asked first where the store's answer is older."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from app.errors import NotFound, Unavailable, UpstreamRejected
from app.identity.caller import Service
from app.linked_accounts.apply import apply_observations
from app.linked_accounts.changes import Source
from app.linked_accounts.decide import Observation
from app.linked_accounts.queries import FreshQuery
from app.linked_accounts.store import LinkedAccount, get_account, get_for_owner, take_read_ticket
from app.runtime import Runtime
from app.stackone.models import Account, AccountGone


async def get_fresh_account(
    runtime: Runtime, caller: Service, account_id: str, query: FreshQuery
) -> tuple[LinkedAccount, bool]:
    """Return an account that the service may see, and whether it is older than was asked for.

    Of many who ask for one account at once, one asks StackOne. Raises NotFound; with `must_be_fresh` Unavailable or
    UpstreamRejected where StackOne does not tell.
    """
    return await _fresh(runtime, lambda: get_account(runtime, caller, account_id), query)


async def get_fresh_account_of_owner(
    runtime: Runtime, owner_id: str, account_id: str, query: FreshQuery
) -> tuple[LinkedAccount, bool]:
    """Do the same for one owner's account. Raises NotFound if it is none, or is none any more."""

    async def stored() -> LinkedAccount:
        account = await get_for_owner(runtime.database, owner_id, account_id)
        if account is None:
            raise NotFound
        return account

    return await _fresh(runtime, stored, query)


async def _fresh(
    runtime: Runtime, stored: Callable[[], Awaitable[LinkedAccount]], query: FreshQuery
) -> tuple[LinkedAccount, bool]:
    account = await stored()
    if query.max_age is None or not _is_older(runtime, account, query.max_age):
        return account, False
    try:
        await _read_once(runtime, account.account_id)
    except (Unavailable, UpstreamRejected):
        if query.must_be_fresh:
            raise
    account = await stored()
    return account, _is_older(runtime, account, query.max_age + _READING_SECONDS)


# What a read may take counts as fresh.
_READING_SECONDS = 30


def _is_older(runtime: Runtime, account: LinkedAccount, seconds: int) -> bool:
    return account.verified_at is None or runtime.clock.now() - account.verified_at > timedelta(seconds=seconds)


async def _read_once(runtime: Runtime, account_id: str) -> None:
    """Have an account read at StackOne, or wait for whoever is reading it."""
    reading = runtime.reading.get(account_id)
    if reading is None:
        reading = asyncio.create_task(_read(runtime, account_id))
        runtime.reading[account_id] = reading
        reading.add_done_callback(lambda _: runtime.reading.pop(account_id, None))
    # Whoever gives up waiting must not end it for the others.
    await asyncio.shield(reading)


async def _read(runtime: Runtime, account_id: str) -> None:
    async with runtime.database.transaction() as connection:
        ticket = await take_read_ticket(connection)
    found: Account | None
    try:
        found = await runtime.stackone.get_account(account_id)
    except AccountGone:
        found = None
    async with runtime.database.transaction() as connection:
        decisions = await apply_observations(
            connection,
            [Observation(account_id, found, ticket)],
            source=Source.REFRESH,
            actor="stackone",
            now=runtime.clock.now(),
            metrics=runtime.metrics,
            settings=runtime.settings.sync,
        )
    if found is None and account_id in decisions:
        # One "no such account" removes nothing, but the account is not there either.
        raise NotFound
