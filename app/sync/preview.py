"""A sweep that only tells: what would be added, changed and removed, without a lease and without writing anything."""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.linked_accounts.decide import Observation, Outcome, decide
from app.linked_accounts.removal_limit import RemovalLimit
from app.linked_accounts.store import columns, count_known_of_all_owners, from_row
from app.linked_accounts.tables import linked_accounts
from app.runtime import Runtime
from app.stackone.budget import Priority
from app.stackone.listing import Listing
from app.stackone.models import Account, AccountGone, AccountPage

_C = linked_accounts.c
_BATCH = 500
# Later than any read: what is asked now counts as news.
_NOW_TICKET = 2**62


@dataclass
class DryRun:
    """What a sweep would do."""

    listed: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    suspects: int = 0
    known: int = 0
    complete: bool = False
    advice: str | None = None


async def dry_run(runtime: Runtime, *, max_removal_percent: float | None, listener: Callable[[DryRun], None]) -> DryRun:
    """Compare everything at StackOne with the store. Raises Unavailable or UpstreamRejected as StackOne answers.

    Ids are remembered by their hashes; a sweep proper notes them in the store instead and needs no memory for them.
    """
    settings = runtime.settings.sync

    async def read_page(number: int) -> AccountPage:
        return await runtime.stackone.list_page(
            page=number, page_size=settings.sweep_page_size, priority=Priority.SWEEP
        )

    found = DryRun()
    seen: set[int] = set()
    async with runtime.database.reading() as connection:
        found.known = await count_known_of_all_owners(connection)
    listing = Listing(read_page, page_size=settings.sweep_page_size)
    while not listing.is_over:
        page = await listing.read()
        new = {account.id: account for account in page.accounts if hash(account.id) not in seen}
        seen.update(hash(account_id) for account_id in new)
        listing.passed(new=len(new))
        async with runtime.database.reading() as connection:
            await _compare(connection, runtime, new, found)
        listener(found)
    found.complete = bool(listing.complete)
    percent = settings.sweep_max_removal_percent if max_removal_percent is None else max_removal_percent
    if found.complete:
        await _count_removals(runtime, seen, found, RemovalLimit(percent, settings.sweep_removal_floor))
    return found


async def _compare(connection: AsyncConnection, runtime: Runtime, accounts: dict[str, Account], found: DryRun) -> None:
    query = sa.select(*columns()).where(_C.account_id.in_(accounts))
    rows = {row.account_id: from_row(row) for row in await connection.execute(query)}
    found.listed += len(accounts)
    for account_id, account in accounts.items():
        row = rows.get(account_id)
        if row is None:
            found.added += 1
            continue
        decision = decide(row, Observation(account_id, account, _NOW_TICKET), runtime.clock.now())
        found.added += decision.is_new
        found.changed += decision.outcome in {Outcome.APPLIED, Outcome.BEHIND, Outcome.REVIVED} and not decision.is_new


async def _count_removals(runtime: Runtime, seen: set[int], found: DryRun, removal_limit: RemovalLimit) -> None:
    missing: list[str] = []
    after = ""
    while True:
        async with runtime.database.reading() as connection:
            query = (
                sa.select(_C.account_id)
                .where(_C.account_id > after, _C.verified_at.is_not(None), _C.deleted_at.is_(None))
                .order_by(_C.account_id)
                .limit(_BATCH)
            )
            ids = [row.account_id for row in await connection.execute(query)]
        if not ids:
            break
        after = ids[-1]
        lacking = [account_id for account_id in ids if hash(account_id) not in seen]
        found.suspects += len(lacking)
        if removal_limit.allows(known=found.known, suspects=found.suspects):
            missing.extend(lacking)
    if not removal_limit.allows(known=found.known, suspects=found.suspects):
        found.advice = removal_limit.advice(known=found.known, suspects=found.suspects)
        return
    for account_id in missing:
        try:
            await runtime.stackone.get_account(account_id, priority=Priority.SWEEP)
        except AccountGone:
            found.removed += 1
