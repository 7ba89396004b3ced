"""What a sweep has to do, and what it has done. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from app.linked_accounts.decide import Decision, Outcome
from app.stackone.models import Account
from app.sync.runs import Sweep

AT_ONCE: Final = 500


def is_time(finished_at: datetime | None, now: datetime, *, interval: timedelta) -> bool:
    """Tell whether a sweep is due by the clock, after one that finished then, or none; an interval of 0 is never."""
    if not interval:
        return False
    if finished_at is None:
        return True
    age = now - finished_at
    # An end in the future was written before the clock was set back; it must not keep sweeps from starting.
    return age >= interval or age < -interval


def pause(tried: int, retry_after: float | None, *, first: float, longest: float) -> float:
    """Return for how many seconds a call that has failed so often is waited out before it is made again."""
    return min(max(retry_after or 0.0, first * 2.0 ** (tried - 1)), longest)


def contradicted(accounts: Sequence[Account]) -> set[str]:
    """Return the ids that a page shows as accounts of different owners."""
    owners = {account.id: account.owner_id for account in accounts}
    return {account.id for account in accounts if owners[account.id] != account.owner_id}


def doubtful(
    listed: Mapping[str, Account],
    owners: Mapping[str, str | None],
    contradicting: Collection[str],
    buried: Collection[str],
) -> list[str]:
    """Return of which listed accounts whose they are is not believed: they are another owner's in the store, or two's.

    What is nobody's by the list is shown to nobody, and needs no second look. `owners` is whose they are in the store,
    and `buried` what it has as deleted, which is asked for in any case.
    """
    moved = {
        account_id for account_id, owner_id in owners.items() if listed[account_id].owner_id not in {None, owner_id}
    }
    return sorted(moved | (set(contradicting) - set(buried)))


def parted(listed: Mapping[str, Account]) -> list[dict[str, Account]]:
    """Return a page in parts that a statement can hold; an empty page is one part."""
    ids = list(listed)
    starts = range(0, max(len(ids), 1), AT_ONCE)
    return [{account_id: listed[account_id] for account_id in ids[start : start + AT_ONCE]} for start in starts]


def counted(sweep: Sweep, decisions: Mapping[str, Decision], *, listed: int) -> Sweep:
    """Add what a batch did to the record of the sweep. What a resumed sweep had removed counts for its limit."""
    outcomes = [decision.outcome for decision in decisions.values()]
    fresh = sum(decision.is_new for decision in decisions.values())
    changed = sum(decision.outcome is Outcome.APPLIED and not decision.is_new for decision in decisions.values())
    return replace(
        sweep,
        listed=sweep.listed + listed,
        added=sweep.added + fresh,
        changed=sweep.changed + changed,
        removed=sweep.removed + outcomes.count(Outcome.GONE),
    )
