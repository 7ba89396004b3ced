"""Due rows, shared by accounts and push: which a process may claim, and how long one waits after a failure."""

import random
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa


def has_passed(column: sa.ColumnElement[Any], now: datetime, *, longest: timedelta) -> sa.ColumnElement[bool]:
    """Tell in SQL whether a time has come that was written as at most `longest` from its writer's now.

    Times much further ahead come from a clock that has since been set back; they count as past, or a row could wait for
    a date that never comes. Not times that are only a little ahead: replicas' clocks differ, and the claim of one whose
    clock is a second ahead is no reason to read the same account at once.
    """
    return sa.or_(column <= now, column > now + 2 * longest)


def is_claimable(
    due_at: sa.ColumnElement[Any],
    claimed_until: sa.ColumnElement[Any],
    now: datetime,
    *,
    longest_wait: timedelta,
    claim_for: timedelta,
) -> sa.ColumnElement[bool]:
    """Tell in SQL whether a row is due and nobody else works on it."""
    is_free = sa.or_(claimed_until.is_(None), has_passed(claimed_until, now, longest=claim_for))
    return sa.and_(has_passed(due_at, now, longest=longest_wait), is_free)


def backoff(
    attempts: int, *, first: float, longest: float, jitter: random.Random, retry_after: float | None = None
) -> timedelta:
    """Return how long to wait after `attempts` earlier failures: doubling, capped, and spread over its upper half.

    A Retry-After that the other side gave counts, up to the same cap.
    """
    exponent = min(attempts, 30)
    seconds = min(longest, first * 2**exponent) * jitter.uniform(0.5, 1.0)
    return timedelta(seconds=max(seconds, min(retry_after or 0, longest)))
