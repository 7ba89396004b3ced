"""The one way in which what StackOne says becomes what we store.

Confirm, refresh, sweep and disconnect all end here. An observation is what one read of StackOne said, with the
ticket that the read drew before it started. Missing rows are created and all are locked in the order of their ids; what
each observation means is then decided by a pure function (`decide`) under these rules:

- no single answer removes an account that StackOne once showed: its "no such account" needs a second, independent
  witness (`Witness`). Where the only one is an earlier read, the removal limit guards it as it guards a sweep: a front
  that answers 404 to everything answers it twice as well;
- a late event revives no tombstone, and neither does a read that began before the one that made it. A later read that
  shows the account does, loudly; only what an erasure has cleared stays as it is;
- a row never moves backwards: first by StackOne's `updated_at`, then by the order of reads. A later read with an older
  `updated_at` is asked again, and believed once it keeps saying so: StackOne's clock may have been set back;
- a request to disconnect is its owner's: it ends when the account becomes another owner's;
- an owner change is recorded for both owners, and loudly.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.tables import upsert
from app.linked_accounts.changes import Change, Kind, Source, Witness
from app.linked_accounts.removal_limit import RemovalLimit
from app.linked_accounts.store import (
    LinkedAccount,
    append_changes,
    columns,
    count_known_of_all_owners,
    count_missing_of_all_owners,
    from_row,
)
from app.linked_accounts.tables import linked_accounts
from app.metrics import Metrics
from app.settings import SyncSettings
from app.stackone.models import REAUTH_STATUSES, Account

logger = structlog.get_logger(__name__)

_C = linked_accounts.c
# Who is named where an account changes hands: neither side learns who of the other was there.
_NOBODY = (Source.REFRESH, "stackone")
_NOT_GONE: Mapping[str, Any] = {"gone_since": None, "deletion_witness": None}
# Fields whose change the feed reports. `owner_id` has events of its own.
_REPORTED = ("provider", "status", "label", "type", "owner_name", "username", "status_reasons")
_UNKNOWN_404_LIMIT = 3
_BEHIND_LIMIT = 3
# For how long accounts that went on the word of two reads count towards the removal limit.
_LIMIT_WINDOW = timedelta(minutes=10)
REMOVALS_PAUSED = (
    "StackOne says of unusually many accounts that they do not exist: none is removed for it. That ends by itself once"
    " reads show the accounts again (check the API key's project). If they really are gone, a sweep whose listing"
    " lacks them removes them: `broker sync`, with `--max-removal-percent 100` where its own limit stops it"
)


class Outcome(Enum):
    """What became of an observation."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    GONE = "gone"
    """StackOne has no such account, and the row is a tombstone now."""
    RETRY = "retry"
    """Not found, and too early to believe it."""
    UNCONFIRMED = "unconfirmed"
    """Not found, and nothing else says so yet: the row stays, and the account is asked for again."""
    PAUSED = "paused"
    """Not found twice, but so are too many others: the row stays, and the account is asked for again."""
    REVIVED = "revived"
    """The row was a tombstone, and StackOne shows the account again."""
    STALE = "stale"
    """An older read than the one the row comes from."""
    BEHIND = "behind"
    """It shows an older state than the row: StackOne is asked again."""
    ERASED = "erased"
    """The row is what an erasure left of the account, and the account is there again: it must be deleted again."""


# What leaves something to do: whoever claimed the row gives it back to be tried later.
UNRESOLVED = frozenset({Outcome.RETRY, Outcome.BEHIND, Outcome.PAUSED})


@dataclass(frozen=True)
class Observation:
    """What one read of StackOne said about one account; `account` is None where it answered "no such account"."""

    account_id: str
    account: Account | None
    ticket: int
    marks: int | None = None
    """`refresh_marks` of the row when the read was claimed: the due mark is cleared only if no hint came since."""
    witness: Witness | None = None
    """What else says that the account is gone, beside the read and what the row remembers."""


@dataclass(frozen=True)
class Removal:
    """When an earlier read is witness enough for removing an account."""

    confirm_after: timedelta = timedelta(minutes=1)
    is_paused: bool = False


@dataclass(frozen=True)
class Decision:
    """What an observation does to a row."""

    outcome: Outcome
    values: Mapping[str, Any]
    changes: tuple[Change, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether this is the first time that StackOne vouched for the account."""
        return any(change.kind is Kind.LINKED for change in self.changes)


def decide(row: LinkedAccount, observation: Observation, now: datetime, removal: Removal = Removal()) -> Decision:
    """Say what an observation does to a row. Pure."""
    account = observation.account
    is_older_read = row.read_ticket is not None and observation.ticket < row.read_ticket
    is_gone = row.deleted_at is not None
    if is_gone and account is None:
        return Decision(Outcome.UNCHANGED, {})
    shows_news = account is not None and row.updated_at is not None and account.updated_at > row.updated_at
    if is_older_read and (is_gone or not shows_news):
        return Decision(Outcome.STALE, {})
    if account is None:
        return _decide_gone(row, observation, now, removal)
    if is_gone and row.verified_at is not None:
        return _decide_revived(row, account, observation.ticket, now)
    is_behind = row.updated_at is not None and account.updated_at < row.updated_at
    if is_behind and row.refresh_attempts < _BEHIND_LIMIT:
        return Decision(Outcome.BEHIND, {})
    return _decide_present(row, account, observation, now)


def _decide_gone(row: LinkedAccount, observation: Observation, now: datetime, removal: Removal) -> Decision:
    # An event can reach us before StackOne's own read side has the account. A row that no read has ever seen is
    # therefore given a few tries before it becomes a tombstone, because that is final.
    if row.verified_at is None and row.disconnect_requested_at is None and row.refresh_attempts < _UNKNOWN_404_LIMIT:
        return Decision(Outcome.RETRY, {})
    told_by = _second_witness(row, observation, now, removal)
    # What its owner gave up is expected to go: the removal limit is not for it.
    is_guarded = told_by is Witness.READ and row.disconnect_requested_at is None
    if row.verified_at is not None and (told_by is None or (is_guarded and removal.is_paused)):
        # A moment in the future was written by a clock that was wrong: the wait begins anew.
        since = min(row.gone_since or now, now)
        values = {"gone_since": since, "read_ticket": observation.ticket}
        return Decision(Outcome.UNCONFIRMED if told_by is None else Outcome.PAUSED, values)
    values = {
        "deleted_at": now,
        "deletion_witness": told_by.value if told_by else None,
        # What only reads have witnessed counts towards the removal limit for a while.
        "gone_since": row.gone_since if is_guarded else None,
        "disconnect_requested_at": None,
        "read_ticket": observation.ticket,
        "refresh_due_at": None,
        "claimed_until": None,
        # Personal fields have no use once the account is gone.
        "username": None,
        "label": None,
        "status_reasons": None,
    }
    if row.verified_at is None:
        return Decision(Outcome.GONE, values)
    # Whoever notices first that a disconnected account is gone, it is gone because somebody asked for it.
    by = row.disconnect_requested_by
    unlinked = Change(
        Kind.UNLINKED, row.account_id, row.owner_id, row.provider, cause=(Source.DISCONNECT, by) if by else None
    )
    return Decision(Outcome.GONE, values, (unlinked,))


def _second_witness(row: LinkedAccount, observation: Observation, now: datetime, removal: Removal) -> Witness | None:
    """Return what beside this read says that an account is gone."""
    if observation.witness is not None:
        return observation.witness
    if row.deletion_witness is not None:
        return Witness(row.deletion_witness)
    if row.gone_since is not None and now - row.gone_since >= removal.confirm_after:
        return Witness.READ
    return None


def _decide_revived(row: LinkedAccount, account: Account, ticket: int, now: datetime) -> Decision:
    if row.erasure_id is not None:
        return Decision(Outcome.ERASED, {"refresh_due_at": now})
    values: dict[str, Any] = {
        **_upstream_values(account),
        **_NOT_GONE,
        "deleted_at": None,
        "verified_at": now,
        "read_ticket": ticket,
        "disconnect_requested_at": None,
        "disconnect_requested_by": None,
        "needs_reauth_since": now if account.status in REAUTH_STATUSES else None,
        # An answer that was under way when the account was deleted looks just the same: one more look tells.
        "refresh_due_at": now,
        "refresh_attempts": 0,
        "claimed_until": None,
    }
    news = {"status": account.status, "revived": True}
    linked = Change(Kind.LINKED, account.id, account.owner_id, account.provider, news)
    if row.owner_id != account.owner_id:
        linked = replace(linked, cause=_NOBODY)
    return Decision(Outcome.REVIVED, values, (linked,))


def _decide_present(row: LinkedAccount, account: Account, observation: Observation, now: datetime) -> Decision:
    ticket = observation.ticket
    new = _upstream_values(account)
    old = {name: getattr(row, name) for name in new}
    if row.status_reasons is not None:
        old["status_reasons"] = list(row.status_reasons)
    # An older read may still show a newer account; the order of what comes after is that of the latest read.
    latest = max(ticket, row.read_ticket or 0)
    values: dict[str, Any] = {**new, "verified_at": now, "read_ticket": latest, "deleted_at": None, "gone_since": None}
    # What said that it is gone was wrong, unless it came after this read began, or it is our own request.
    if observation.marks in {None, row.refresh_marks} and row.disconnect_requested_at is None:
        values["deletion_witness"] = None
    if row.verified_at is None:
        linked = Change(Kind.LINKED, account.id, account.owner_id, account.provider, {"status": account.status})
        values |= _reauth_values(row, account.status, now)
        return Decision(Outcome.APPLIED, values, (linked,))
    changes: list[Change] = []
    if old["owner_id"] != new["owner_id"]:
        # Each owner is told its own half: who left it for whom is nobody else's business, nor are the names that the
        # account had before, nor whose page or request made the broker look.
        changes.append(Change(Kind.OWNER_CHANGED, account.id, row.owner_id, row.provider, {"owner": "left"}, _NOBODY))
        changes.append(
            Change(Kind.OWNER_CHANGED, account.id, account.owner_id, account.provider, {"owner": "joined"}, _NOBODY)
        )
        values |= {"disconnect_requested_at": None, "disconnect_requested_by": None, "deletion_witness": None}
    differing = {name: {"from": old[name], "to": new[name]} for name in _REPORTED if old[name] != new[name]}
    has_moved = bool(changes)
    if differing and not has_moved:
        changes.append(Change(Kind.UPDATED, account.id, account.owner_id, account.provider, differing))
    reauth = _reauth_values(row, account.status, now)
    if reauth.get("needs_reauth_since") is not None:
        why = {"status": account.status, "status_reasons": new["status_reasons"]}
        changes.append(Change(Kind.NEEDS_REAUTH, account.id, account.owner_id, account.provider, why))
    elif "recovered_at" in reauth:
        changes.append(Change(Kind.RECOVERED, account.id, account.owner_id, account.provider))
    if has_moved:
        changes = [replace(change, cause=_NOBODY) for change in changes if change.owner_id is not None]
    return Decision(Outcome.APPLIED if old != new else Outcome.UNCHANGED, values | reauth, tuple(changes))


def _upstream_values(account: Account) -> dict[str, Any]:
    reasons = account.status_reasons
    return {
        "owner_id": account.owner_id,
        "owner_name": account.owner_name,
        "username": account.username,
        "provider": account.provider,
        "status": account.status,
        "status_reasons": [reason.model_dump(exclude_none=True) for reason in reasons] if reasons else None,
        "label": account.label,
        "type": account.type,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }


def _reauth_values(row: LinkedAccount, status: str, now: datetime) -> dict[str, Any]:
    before, after = row.needs_reauth_since is not None, status in REAUTH_STATUSES
    if after and not before:
        return {"needs_reauth_since": now}
    if before and status == "active":
        return {"needs_reauth_since": None, "recovered_at": now}
    if before and not after:
        return {"needs_reauth_since": None}
    return {}


async def apply_observations(
    connection: AsyncConnection,
    observations: Sequence[Observation],
    *,
    source: Source,
    actor: str,
    now: datetime,
    metrics: Metrics,
    settings: SyncSettings,
    swept_in: int | None = None,
    also: Callable[[Mapping[str, Decision]], Awaitable[None]] | None = None,
) -> dict[str, Decision]:
    """Apply what StackOne said about some accounts and append what changed to the feed.

    The transaction may do nothing after it, as after `append_changes`. `swept_in` is the sweep whose listing this is.
    `also` writes down what came of it, in the same transaction.
    Returns the decision for each account id.
    """
    by_id = {observation.account_id: observation for observation in observations}
    rows = await _lock_rows(connection, by_id)
    removal = await _removal(connection, observations, settings, now)
    decisions: dict[str, Decision] = {}
    updates: list[dict[str, Any]] = []
    changes: list[Change] = []
    seen_again: list[str] = []
    for account_id, row in rows.items():
        observation = by_id[account_id]
        decision = decide(row, observation, now, removal)
        decisions[account_id] = decision
        values = {**decision.values, **_mark_values(row, observation, decision, now, removal)}
        if decision.outcome is Outcome.UNCHANGED and decision.values and _only_seen_again(row, values):
            seen_again.append(account_id)
        elif values:
            updates.append({"row_id": account_id, **{name: values.get(name, getattr(row, name)) for name in _WRITTEN}})
        changes.extend(decision.changes)
        _report_surprises(row, decision, metrics)
    if updates:
        statement = sa.update(linked_accounts).where(_C.account_id == sa.bindparam("row_id"))
        await connection.execute(statement.values({name: sa.bindparam(name) for name in _WRITTEN}), updates)
    await _mark_seen(connection, observations, seen_again, swept_in, now)
    if also is not None:
        await also(decisions)
    await append_changes(connection, changes, source=source, actor=actor, now=now)
    return decisions


async def _removal(
    connection: AsyncConnection, observations: Sequence[Observation], settings: SyncSettings, now: datetime
) -> Removal:
    confirm_after = timedelta(seconds=settings.deletion_confirm_seconds)
    if all(observation.account is not None for observation in observations):
        return Removal(confirm_after)
    return Removal(confirm_after, is_paused=await removals_paused(connection, settings, now))


async def removals_paused(connection: AsyncConnection, settings: SyncSettings, now: datetime) -> bool:
    """Tell whether so many accounts are missing that the word of two reads removes none for now."""
    since = now - _LIMIT_WINDOW - timedelta(seconds=settings.deletion_confirm_seconds)
    missing = await count_missing_of_all_owners(connection, since=since)
    removal_limit = RemovalLimit(settings.sweep_max_removal_percent, settings.sweep_removal_floor)
    # Counting all accounts takes a while where there are millions: only if it matters.
    if missing <= removal_limit.floor and removal_limit.percent > 0:
        return False
    return not removal_limit.allows(known=await count_known_of_all_owners(connection), suspects=missing)


def _only_seen_again(row: LinkedAccount, values: Mapping[str, Any]) -> bool:
    """Tell whether an observation changes nothing but when the row was last confirmed."""
    return all(name in {"verified_at", "read_ticket"} or getattr(row, name) == value for name, value in values.items())


async def _mark_seen(
    connection: AsyncConnection,
    observations: Sequence[Observation],
    seen_again: list[str],
    swept_in: int | None,
    now: datetime,
) -> None:
    """Confirm unchanged rows, and note the sweep, in one statement per batch: most rows of a sweep are of this kind."""
    by_ticket: dict[int, list[str]] = {}
    unchanged = set(seen_again)
    for observation in observations:
        if observation.account_id in unchanged:
            by_ticket.setdefault(observation.ticket, []).append(observation.account_id)
    mark = {"swept_in": swept_in} if swept_in is not None else {}
    for ticket, ids in by_ticket.items():
        statement = sa.update(linked_accounts).where(_C.account_id.in_(ids))
        await connection.execute(statement.values(verified_at=now, read_ticket=ticket, **mark))
    others = [observation.account_id for observation in observations if observation.account_id not in unchanged]
    if mark and others:
        await connection.execute(sa.update(linked_accounts).where(_C.account_id.in_(others)).values(**mark))


_WRITTEN = (
    "owner_id", "owner_name", "username", "provider", "status", "status_reasons", "label", "type", "created_at",
    "updated_at", "needs_reauth_since", "recovered_at", "verified_at", "read_ticket", "deleted_at", "gone_since",
    "deletion_witness", "refresh_due_at", "refresh_attempts", "claimed_until", "disconnect_requested_at",
    "disconnect_requested_by",
)  # fmt: skip


async def _lock_rows(connection: AsyncConnection, by_id: Mapping[str, Observation]) -> dict[str, LinkedAccount]:
    """Create missing rows, then lock all of them in one order, so that two batches never wait for each other."""
    ids = sorted(by_id)
    present = [account_id for account_id in ids if by_id[account_id].account is not None]
    if present:
        statement = upsert(connection, linked_accounts, [{"account_id": account_id} for account_id in present])
        await connection.execute(statement.on_conflict_do_nothing(index_elements=[_C.account_id]))
    query = sa.select(*columns()).where(_C.account_id.in_(ids)).order_by(_C.account_id)
    result = await connection.execute(query.with_for_update())
    return {row.account_id: from_row(row) for row in result}


def _mark_values(
    row: LinkedAccount, observation: Observation, decision: Decision, now: datetime, removal: Removal
) -> dict[str, Any]:
    """Clear the due mark that this read answers, unless there is more to do for the row."""
    if decision.outcome is Outcome.REVIVED:
        return {}
    if decision.outcome is Outcome.UNCONFIRMED:
        return _ask_again(row, observation, decision.values["gone_since"] + removal.confirm_after)
    if observation.marks is None:
        # A read that nobody claimed answers no mark, but it may find that another look is needed.
        return {"refresh_due_at": now} if decision.outcome is Outcome.BEHIND and row.refresh_due_at is None else {}
    if decision.outcome in UNRESOLVED:
        return {}
    if decision.outcome is Outcome.GONE or row.deleted_at is not None:
        return {"refresh_due_at": None, "refresh_attempts": 0, "claimed_until": None}
    is_leaving = decision.values.get("disconnect_requested_at", row.disconnect_requested_at) is not None
    is_answered = row.refresh_marks == observation.marks and not is_leaving
    missing_since = decision.values.get("gone_since", row.gone_since)
    return {
        # An older read answers the mark, but not what a later one has found missing.
        "refresh_due_at": (
            (missing_since and missing_since + removal.confirm_after) if is_answered else row.refresh_due_at
        ),
        "refresh_attempts": 0,
        "claimed_until": None,
    }


def _ask_again(row: LinkedAccount, observation: Observation, at: datetime) -> dict[str, Any]:
    """Have an account read once more when a second answer may be believed; a hint since then is not delayed."""
    if observation.marks is None:
        return {"refresh_due_at": at} if row.refresh_due_at is None else {}
    due_at = at if row.refresh_marks == observation.marks or row.refresh_due_at is None else row.refresh_due_at
    return {"refresh_due_at": due_at, "refresh_attempts": 0, "claimed_until": None}


def _report_surprises(row: LinkedAccount, decision: Decision, metrics: Metrics) -> None:
    if any(change.kind is Kind.OWNER_CHANGED for change in decision.changes):
        metrics.owner_changes.inc()
        logger.error("account_owner_changed", account_id=row.account_id)
    if decision.outcome is Outcome.UNCONFIRMED and row.gone_since is None:
        logger.warning("account_missing", account_id=row.account_id)
    if decision.outcome is Outcome.PAUSED:
        metrics.removals_paused.inc()
        logger.error("account_removal_paused", account_id=row.account_id, advice=REMOVALS_PAUSED)
    if decision.outcome is Outcome.REVIVED:
        metrics.revived.inc()
        logger.error("deleted_account_revived", account_id=row.account_id)
    if decision.outcome is Outcome.ERASED:
        logger.error("erased_account_seen_again", account_id=row.account_id)
