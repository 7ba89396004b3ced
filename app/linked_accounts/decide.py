"""What an observation means: pure decisions, under these rules.

- No single answer removes an account that StackOne once showed: its "no such account" needs a second, independent
  witness (`Witness`). Where the only one is an earlier read, the removal limit guards it as it guards a sweep: a front
  that answers 404 to everything answers it twice as well.
- A late event revives no tombstone, and neither does a read that began before the one that made it. A later read that
  shows the account does, loudly; only what an erasure has cleared stays as it is.
- A row never moves backwards: first by StackOne's `updated_at`, then by the order of reads. A later read with an older
  `updated_at` is asked again, and believed once it keeps saying so: StackOne's clock may have been set back.
- A request to disconnect is its owner's: it ends when the account becomes another owner's.
- An owner change is recorded for both owners, and loudly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from app.linked_accounts.changes import Change, Kind, Source, Witness
from app.linked_accounts.store import LinkedAccount
from app.stackone.models import REAUTH_STATUSES, Account

# Who is named where an account changes hands: neither side learns who of the other was there.
_NOBODY = (Source.REFRESH, "stackone")
_NOT_GONE: Mapping[str, Any] = {"gone_since": None, "deletion_witness": None}
# Fields whose change the feed reports. `owner_id` has events of its own.
_REPORTED = ("provider", "status", "label", "type", "owner_name", "username", "status_reasons")
_UNKNOWN_404_LIMIT = 3
_BEHIND_LIMIT = 3


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
    confirmed_by: str | None = None
    """The user who said to have linked the account, where the read shows it as theirs."""


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
        return Decision(Outcome.STALE, {} if is_gone else _naming(row, observation, now))
    if account is None:
        return _decide_gone(row, observation, now, removal)
    if is_gone and row.verified_at is not None:
        return _decide_revived(row, account, observation.ticket, now)
    is_behind = row.updated_at is not None and account.updated_at < row.updated_at
    if is_behind and row.refresh_attempts < _BEHIND_LIMIT:
        return Decision(Outcome.BEHIND, _naming(row, observation, now))
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
        "confirmed_by": None,
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
        "remind_at": None,
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
    values |= _naming(replace(row, owner_id=account.owner_id), observation, now)
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
        values.setdefault("confirmed_by", None)
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


def _naming(row: LinkedAccount, observation: Observation, now: datetime) -> dict[str, Any]:
    """Return who said to have linked the account, as far as it is theirs: an overtaken read shows it, too."""
    account, who = observation.account, observation.confirmed_by
    if who is None or account is None or account.owner_id != row.owner_id:
        return {}
    return {"confirmed_at": now, "confirmed_by": who}


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
        return {"needs_reauth_since": now, "remind_at": None}
    if before and status == "active":
        return {"needs_reauth_since": None, "remind_at": None, "recovered_at": now}
    if before and not after:
        return {"needs_reauth_since": None, "remind_at": None}
    return {}


def mark_values(
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


def only_seen_again(row: LinkedAccount, values: Mapping[str, Any]) -> bool:
    """Tell whether an observation changes nothing but when the row was last confirmed."""
    return all(name in {"verified_at", "read_ticket"} or getattr(row, name) == value for name, value in values.items())
