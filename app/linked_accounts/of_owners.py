"""One question across all owners: which accounts are there, which must be reconnected; and a snapshot to copy from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.errors import FieldError, Unprocessable
from app.identity.caller import Scope, Service
from app.linked_accounts.feed import read_feed_head
from app.linked_accounts.queries import AllAccountsQuery, encode_cursor
from app.linked_accounts.store import LinkedAccount, list_of_owners
from app.runtime import Runtime


@dataclass(frozen=True)
class AccountsOfOwners:
    """A page of accounts, how to go on, and where the feed stood before the first page was read."""

    accounts: Sequence[LinkedAccount]
    next_cursor: str | None
    feed_position: str | None


async def list_accounts_of_owners(runtime: Runtime, caller: Service, query: AllAccountsQuery) -> AccountsOfOwners:
    """Return a page of the accounts that a service may see.

    The feed's position is read before the first page, and carried along in the cursor: whatever changes while a reader
    goes through the pages comes behind it in the feed.
    Raises InsufficientScope for an owner that is not the caller's, Unprocessable for a cursor of another list.
    """
    for owner_id in query.owner_id:
        caller.require(Scope.ACCOUNTS_READ, owner_id)
    after, position = _place(query)
    async with runtime.database.reading() as connection:
        if query.snapshot and position is None:
            position = await read_feed_head(connection)
        accounts = await list_of_owners(connection, query, caller.owner_ids, after=after, limit=query.limit + 1)
    page = accounts[: query.limit]
    cursor = _cursor(query, page[-1], position) if len(accounts) > query.limit else None
    return AccountsOfOwners(page, cursor, position)


def _cursor(query: AllAccountsQuery, last: LinkedAccount, position: str | None) -> str:
    since = last.needs_reauth_since.isoformat() if query.needs_reauth and last.needs_reauth_since else ""
    return encode_cursor(f"{position or ''}|{since}|{last.account_id}")


def _place(query: AllAccountsQuery) -> tuple[tuple[datetime | None, str] | None, str | None]:
    """Read a cursor: behind which account, and which position of the feed comes with it."""
    if query.cursor is None:
        return None, None
    position, _, rest = query.cursor.partition("|")
    since, _, account_id = rest.partition("|")
    try:
        moment = datetime.fromisoformat(since) if since else None
    except ValueError:
        moment = None
    is_of_this = bool(account_id) and (moment is not None) == bool(query.needs_reauth)
    if not is_of_this or bool(position) != query.snapshot or (moment is not None and moment.tzinfo is None):
        message = "not a cursor of this list; leave it out to start anew"
        raise Unprocessable(errors=[FieldError("query.cursor", message)])
    return (moment, account_id), position or None
