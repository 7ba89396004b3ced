"""Which of several accounts is worked with."""

from collections.abc import Sequence

from connect_broker_client.models import Account


def the_one(accounts: Sequence[Account]) -> Account | None:
    """Return one that works, else one that signing in anew repairs, else any; the first of equals."""
    return min(accounts, key=_rank, default=None)


def _rank(account: Account) -> int:
    if account.usable:
        return 0
    return 1 if account.needs_reauth and not account.leaving else 2
