"""What a reading of StackOne does to a row: a pure decision, looked at case by case."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.linked_accounts.changes import Source, Witness
from app.linked_accounts.decide import (
    Decision,
    Observation,
    Outcome,
    Removal,
    decide,
    mark_values,
    only_seen_again,
)
from app.linked_accounts.store import LinkedAccount
from app.stackone.models import Account

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
FIELDS = {"owner_id": "acme", "owner_name": "Acme", "username": "ann", "provider": "bamboohr", "status": "active"}


def row(**values: Any) -> LinkedAccount:
    """Return a row that StackOne confirmed in read 10."""
    empty = dict.fromkeys(LinkedAccount.__dataclass_fields__)
    known = {"updated_at": NOW, "verified_at": NOW, "read_ticket": 10, "refresh_marks": 1, "refresh_attempts": 0}
    return LinkedAccount(**{**empty, "account_id": "a", **FIELDS, **known, **values})


def account(**values: Any) -> Account:
    return Account.model_validate({"id": "a", **FIELDS, "updated_at": NOW, **values})


def decided(
    before: LinkedAccount, now_shown: Account | None, ticket: int = 11, witness: Witness | None = None
) -> Decision:
    return decide(before, Observation("a", now_shown, ticket, witness=witness), NOW)


def kinds(decision: Decision) -> list[str]:
    return [change.kind.value for change in decision.changes]


UNSEEN = {"verified_at": None, "updated_at": None, "read_ticket": None, "status": None}


@pytest.mark.parametrize(
    ("before", "shown", "ticket", "outcome", "told"),
    [
        pytest.param(row(), account(), 11, "unchanged", [], id="the same again"),
        pytest.param(row(), account(updated_at=LATER), 11, "applied", [], id="only its time changed: no news"),
        pytest.param(row(), account(label="x", updated_at=LATER), 11, "applied", ["account.updated"], id="edited"),
        pytest.param(row(), account(label="x"), 9, "stale", [], id="an older read of the same time"),
        pytest.param(
            row(), account(label="x", updated_at=LATER), 9, "applied", ["account.updated"], id="older read, newer state"
        ),
        pytest.param(
            row(), account(label="x", updated_at=EARLIER), 11, "behind", [], id="its time went back: ask again"
        ),
        pytest.param(
            row(refresh_attempts=3),
            account(label="x", updated_at=EARLIER),
            11,
            "applied",
            ["account.updated"],
            id="its time went back and stays there",
        ),
        pytest.param(row(), None, 11, "unconfirmed", [], id="gone, says one answer"),
        pytest.param(
            row(gone_since=NOW - timedelta(seconds=59)), None, 11, "unconfirmed", [], id="gone, says another too soon"
        ),
        pytest.param(
            row(gone_since=NOW - timedelta(seconds=60)),
            None,
            11,
            "gone",
            ["account.unlinked"],
            id="gone, says another after a minute",
        ),
        pytest.param(row(gone_since=LATER), None, 11, "unconfirmed", [], id="gone since a time that is still to come"),
        pytest.param(
            row(deletion_witness="event"), None, 11, "gone", ["account.unlinked"], id="gone, and a signed event said so"
        ),
        pytest.param(row(), None, 9, "stale", [], id="gone, said an older read"),
        pytest.param(row(**UNSEEN), None, 11, "retry", [], id="not there yet"),
        pytest.param(row(**UNSEEN, refresh_attempts=3), None, 11, "gone", [], id="never was there"),
        pytest.param(row(**UNSEEN), account(), 11, "applied", ["account.linked"], id="first seen"),
        pytest.param(
            row(deleted_at=NOW),
            account(updated_at=LATER),
            11,
            "revived",
            ["account.linked"],
            id="a tombstone, seen later",
        ),
        pytest.param(
            row(deleted_at=NOW, erasure_id="er_1"), account(), 11, "erased", [], id="an erased one, seen later"
        ),
        pytest.param(row(deleted_at=NOW), account(updated_at=LATER), 9, "stale", [], id="an answer that came too late"),
        pytest.param(row(deleted_at=NOW), None, 11, "unchanged", [], id="still gone"),
        pytest.param(
            row(**{**UNSEEN, "read_ticket": 10}, deleted_at=NOW),
            account(),
            11,
            "applied",
            ["account.linked"],
            id="a tombstone unseen, and there after all",
        ),
        pytest.param(
            row(**{**UNSEEN, "read_ticket": 10}, deleted_at=NOW),
            account(),
            9,
            "stale",
            [],
            id="tombstone unseen, late",
        ),
        pytest.param(
            row(), account(status="expired"), 11, "applied", ["account.updated", "account.needs_reauth"], id="expires"
        ),
        pytest.param(
            row(status="error", needs_reauth_since=EARLIER),
            account(),
            11,
            "applied",
            ["account.updated", "account.recovered"],
            id="recovers",
        ),
        pytest.param(
            row(status="error", needs_reauth_since=EARLIER),
            account(status="suspended"),
            11,
            "applied",
            ["account.updated"],
            id="is suspended while it needs somebody",
        ),
    ],
)
def test_an_observation_does_what_it_may(
    before: LinkedAccount, shown: Account | None, ticket: int, outcome: str, told: list[str]
) -> None:
    decision = decided(before, shown, ticket)
    assert (decision.outcome.value, kinds(decision)) == (outcome, told)


def test_the_order_of_reads_never_goes_back() -> None:
    assert decided(row(), account(updated_at=LATER), ticket=9).values["read_ticket"] == 10


def test_needing_somebody_has_a_beginning_and_an_end() -> None:
    broken = decided(row(), account(status="error", status_reasons=[{"code": "expired_token"}]))
    assert broken.values["needs_reauth_since"] == NOW
    assert broken.changes[1].changes == {"status": "error", "status_reasons": [{"code": "expired_token"}]}
    still = decided(row(status="error", needs_reauth_since=EARLIER), account(status="expired"))
    assert "needs_reauth_since" not in still.values
    fixed = decided(row(status="error", needs_reauth_since=EARLIER), account())
    assert (fixed.values["needs_reauth_since"], fixed.values["recovered_at"]) == (None, NOW)


def test_a_new_owner_gets_the_account_without_its_past() -> None:
    before = row(disconnect_requested_at=EARLIER, disconnect_requested_by="user:ann", label="Ann's")
    decision = decided(before, account(owner_id="globex", owner_name="Globex", username="bob", label="Bob's"))
    assert [(change.owner_id, change.changes) for change in decision.changes] == [
        ("acme", {"owner": "left"}),
        ("globex", {"owner": "joined"}),
    ]
    # The request to disconnect was the old owner's.
    assert decision.values["disconnect_requested_at"] is None
    assert decision.values["owner_id"] == "globex"


def test_an_account_that_is_gone_keeps_no_personal_fields() -> None:
    gone = decided(row(label="Ann's", disconnect_requested_by="user:ann"), None, witness=Witness.DELETION)
    assert {name: gone.values[name] for name in ("username", "label", "status_reasons")} == dict.fromkeys(
        ("username", "label", "status_reasons")
    )
    assert gone.changes[0].cause == (Source.DISCONNECT, "user:ann")


@pytest.mark.parametrize("witness", list(Witness))
def test_a_second_witness_is_enough(witness: Witness) -> None:
    gone = decided(row(), None, witness=witness)
    assert (gone.outcome.value, gone.values["deletion_witness"]) == ("gone", witness.value)


def test_while_removals_pause_only_what_two_reads_say_waits() -> None:
    missing = {"gone_since": NOW - timedelta(hours=1)}
    observation = Observation("a", None, 11)

    def paused(before: LinkedAccount) -> str:
        return decide(before, observation, NOW, Removal(timedelta(minutes=1), is_paused=True)).outcome.value

    assert paused(row(**missing)) == "paused"
    assert paused(row(**missing, deletion_witness="event")) == "gone"
    # Its owner gave it up.
    assert paused(row(**missing, disconnect_requested_at=EARLIER)) == "gone"


def test_a_read_that_shows_the_account_takes_back_what_said_that_it_is_gone() -> None:
    doubted = row(gone_since=EARLIER, deletion_witness="event")
    shown = decided(doubted, account())
    assert (shown.values["gone_since"], shown.values["deletion_witness"]) == (None, None)
    # An event that came after the read began is not answered by it.
    early = decide(doubted, Observation("a", account(), 11, marks=0), NOW)
    assert "deletion_witness" not in early.values


def test_a_revived_account_is_looked_at_once_more_and_has_no_past() -> None:
    before = row(deleted_at=EARLIER, disconnect_requested_at=EARLIER, disconnect_requested_by="user:ann")
    revived = decided(before, account())
    assert revived.changes[0].changes == {"status": "active", "revived": True}
    kept = ("deleted_at", "disconnect_requested_at", "disconnect_requested_by", "deletion_witness", "refresh_due_at")
    assert [revived.values[name] for name in kept] == [None, None, None, None, NOW]


def test_neither_side_of_an_owner_change_learns_who_made_the_broker_look() -> None:
    decision = decided(row(), account(owner_id="globex", status="error"))
    assert len(decision.changes) == 3
    assert {change.cause for change in decision.changes} == {(Source.REFRESH, "stackone")}


AFTER = timedelta(minutes=1)
REMOVAL = Removal(AFTER)


def marked(before: LinkedAccount, observation: Observation, removal: Removal = REMOVAL) -> dict[str, Any]:
    """Return what an observation does to a row's due mark."""
    return mark_values(before, observation, decide(before, observation, NOW, removal), NOW, removal)


def test_a_read_answers_the_marks_that_were_there_when_it_was_claimed() -> None:
    due = row(refresh_due_at=NOW, refresh_attempts=2, claimed_until=LATER, refresh_marks=5)
    done = {"refresh_due_at": None, "refresh_attempts": 0, "claimed_until": None}
    assert marked(due, Observation("a", account(), 11, marks=5)) == done
    # A hint that came meanwhile stays due.
    assert marked(due, Observation("a", account(), 11, marks=4)) == {**done, "refresh_due_at": NOW}
    # So does what its owner wants to be rid of.
    leaving = row(refresh_due_at=NOW, refresh_marks=5, disconnect_requested_at=EARLIER)
    assert marked(leaving, Observation("a", account(), 11, marks=5))["refresh_due_at"] == NOW
    # Unless it has become somebody else's.
    moved = Observation("a", account(owner_id="globex"), 11, marks=5)
    assert marked(leaving, moved)["refresh_due_at"] is None
    # A read that nobody claimed answers none.
    assert marked(due, Observation("a", account(), 11)) == {}


def test_what_has_more_to_it_stays_as_it_was_claimed() -> None:
    behind = Observation("a", account(updated_at=EARLIER), 11, marks=1)
    assert marked(row(), behind) == {}
    assert marked(row(**UNSEEN), Observation("a", None, 11, marks=1)) == {}
    assert marked(row(deleted_at=NOW), Observation("a", account(), 11, marks=1)) == {}
    paused = Removal(AFTER, is_paused=True)
    assert marked(row(gone_since=EARLIER), Observation("a", None, 11, marks=1), paused) == {}
    # Unclaimed, it asks for another look if there is none to come.
    unclaimed = Observation("a", account(updated_at=EARLIER), 11)
    assert marked(row(), unclaimed) == {"refresh_due_at": NOW}
    assert marked(row(refresh_due_at=LATER), unclaimed) == {}
    assert marked(row(refresh_due_at=EARLIER), Observation("a", account(), 11)) == {}


def test_what_is_gone_is_not_due() -> None:
    done = {"refresh_due_at": None, "refresh_attempts": 0, "claimed_until": None}
    assert marked(row(deletion_witness="event"), Observation("a", None, 11, marks=0)) == done
    assert marked(row(deleted_at=EARLIER, refresh_due_at=NOW), Observation("a", None, 11, marks=0)) == done


def test_what_is_missing_is_asked_for_again_when_a_second_answer_counts() -> None:
    again = {"refresh_due_at": NOW + AFTER, "refresh_attempts": 0, "claimed_until": None}
    claimed = Observation("a", None, 11, marks=1)
    assert marked(row(refresh_due_at=NOW), claimed) == again
    since = row(gone_since=NOW - timedelta(seconds=20), refresh_due_at=NOW)
    assert marked(since, claimed)["refresh_due_at"] == NOW + timedelta(seconds=40)
    # A hint since then is not put off.
    assert marked(row(refresh_due_at=EARLIER, refresh_marks=2), claimed)["refresh_due_at"] == EARLIER
    assert marked(row(refresh_due_at=None, refresh_marks=2), claimed) == again
    assert marked(row(), Observation("a", None, 11)) == {"refresh_due_at": NOW + AFTER}
    assert marked(row(refresh_due_at=EARLIER), Observation("a", None, 11)) == {}


def test_an_older_read_answers_its_mark_but_not_what_a_later_one_missed() -> None:
    missing = row(gone_since=NOW - timedelta(seconds=20), refresh_due_at=NOW)
    late = Observation("a", account(), 9, marks=1)
    assert decide(missing, late, NOW, REMOVAL).outcome is Outcome.STALE
    assert marked(missing, late)["refresh_due_at"] == NOW + timedelta(seconds=40)
    assert marked(missing, Observation("a", account(), 11, marks=1))["refresh_due_at"] is None


def test_everything_that_a_read_shows_is_stored() -> None:
    shown = account(
        owner_id="acme",
        owner_name="Acme 2",
        username="bob",
        provider="workday",
        status="suspended",
        label="l",
        type="test",
        created_at=EARLIER,
        updated_at=LATER,
        status_reasons=[{"code": "c"}],
    )
    decision = decided(row(gone_since=EARLIER), shown)
    assert decision.values == {
        "owner_id": "acme",
        "owner_name": "Acme 2",
        "username": "bob",
        "provider": "workday",
        "status": "suspended",
        "status_reasons": [{"code": "c"}],
        "label": "l",
        "type": "test",
        "created_at": EARLIER,
        "updated_at": LATER,
        "verified_at": NOW,
        "read_ticket": 11,
        "deleted_at": None,
        "gone_since": None,
        "deletion_witness": None,
    }
    [change] = decision.changes
    assert (change.account_id, change.owner_id, change.provider, change.cause) == ("a", "acme", "workday", None)
    assert change.changes == {
        "provider": {"from": "bamboohr", "to": "workday"},
        "status": {"from": "active", "to": "suspended"},
        "label": {"from": None, "to": "l"},
        "type": {"from": None, "to": "test"},
        "owner_name": {"from": "Acme", "to": "Acme 2"},
        "username": {"from": "ann", "to": "bob"},
        "status_reasons": {"from": None, "to": [{"code": "c"}]},
    }
    assert not decision.is_new
    same = decided(row(status_reasons=({"code": "c"},)), account(status_reasons=[{"code": "c"}]))
    assert (same.outcome, same.changes) == (Outcome.UNCHANGED, ())
    assert decided(row(), account(status_reasons=[])).values["status_reasons"] is None


def test_what_is_first_seen_is_linked_with_its_status() -> None:
    decision = decided(row(**UNSEEN), account(status="error"))
    [change] = decision.changes
    assert (change.account_id, change.owner_id, change.provider, change.changes) == (
        "a",
        "acme",
        "bamboohr",
        {"status": "error"},
    )
    assert decision.is_new
    assert (decision.values["needs_reauth_since"], decision.values["verified_at"]) == (NOW, NOW)


def test_what_goes_is_cleared() -> None:
    leaving = row(disconnect_requested_at=EARLIER, disconnect_requested_by="user:ann", gone_since=EARLIER)
    gone = decided(leaving, None)
    cleared = dict.fromkeys(
        ("gone_since", "disconnect_requested_at", "refresh_due_at", "claimed_until", "username", "label")
    )
    assert gone.values == {
        **cleared,
        "status_reasons": None,
        "confirmed_by": None,
        "deleted_at": NOW,
        "deletion_witness": "read",
        "read_ticket": 11,
    }
    [change] = gone.changes
    assert (change.account_id, change.owner_id, change.provider) == ("a", "acme", "bamboohr")
    # What nobody gave up, and only reads have missed, counts towards the removal limit.
    missed = decided(row(gone_since=EARLIER), None)
    assert (missed.values["gone_since"], missed.changes[0].cause) == (EARLIER, None)
    assert decided(row(gone_since=EARLIER, deletion_witness="event"), None).values["gone_since"] is None
    never = decided(row(**UNSEEN, refresh_attempts=3), None)
    assert (never.values["deletion_witness"], never.values["deleted_at"], never.changes) == (None, NOW, ())
    # What its owner gave up before any read had seen it needs no further tries.
    assert decided(row(**UNSEEN, disconnect_requested_at=NOW), None).outcome is Outcome.GONE
    early = decided(row(**{**UNSEEN, "refresh_attempts": 2}), None)
    assert (early.outcome, early.values, early.changes) == (Outcome.RETRY, {}, ())


def test_what_is_missed_says_since_when() -> None:
    first = decided(row(), None)
    assert first.values == {"gone_since": NOW, "read_ticket": 11}
    assert decided(row(gone_since=NOW - timedelta(seconds=9)), None).values["gone_since"] == NOW - timedelta(seconds=9)
    assert decided(row(gone_since=LATER), None).values["gone_since"] == NOW
    assert decide(row(gone_since=NOW - AFTER), Observation("a", None, 11), NOW).outcome is Outcome.GONE
    slow = Removal(timedelta(minutes=2))
    assert decide(row(gone_since=NOW - AFTER), Observation("a", None, 11), NOW, slow).outcome is Outcome.UNCONFIRMED
    waiting = Removal(AFTER, is_paused=True)
    assert decide(row(), Observation("a", None, 11), NOW, waiting).outcome is Outcome.UNCONFIRMED


def test_a_witness_of_the_moment_comes_before_the_one_that_was_noted() -> None:
    gone = decided(row(deletion_witness="event", gone_since=EARLIER), None, witness=Witness.LISTING)
    assert gone.values["deletion_witness"] == "listing"
    assert decided(row(deletion_witness="event", gone_since=EARLIER), None).values["deletion_witness"] == "event"


def test_a_revived_account_is_as_if_new() -> None:
    before = row(deleted_at=EARLIER, gone_since=EARLIER, refresh_attempts=2, status="error")
    revived = decided(before, account(status="expired", label="l", updated_at=LATER))
    assert revived.values == {
        **{name: revived.values[name] for name in ("owner_id", "owner_name", "username", "provider", "type")},
        "status": "expired",
        "label": "l",
        "status_reasons": None,
        "created_at": None,
        "updated_at": LATER,
        "gone_since": None,
        "deletion_witness": None,
        "deleted_at": None,
        "verified_at": NOW,
        "read_ticket": 11,
        "disconnect_requested_at": None,
        "disconnect_requested_by": None,
        "needs_reauth_since": NOW,
        "remind_at": None,
        "refresh_due_at": NOW,
        "refresh_attempts": 0,
        "claimed_until": None,
    }
    [change] = revived.changes
    assert (change.account_id, change.owner_id, change.provider, change.cause) == ("a", "acme", "bamboohr", None)
    assert revived.is_new
    assert decided(before, account()).values["needs_reauth_since"] is None
    to_another = decided(before, account(owner_id="globex"))
    assert to_another.changes[0].cause == (Source.REFRESH, "stackone")
    assert to_another.changes[0].changes == {"status": "active", "revived": True}
    erased = decided(row(deleted_at=EARLIER, erasure_id="er_1"), account())
    assert (erased.values, erased.changes) == ({"refresh_due_at": NOW}, ())


def test_an_owner_change_forgets_what_the_old_owner_asked_for() -> None:
    before = row(
        disconnect_requested_at=EARLIER,
        disconnect_requested_by="user:ann",
        deletion_witness="event",
        confirmed_by="ann",
    )
    moved = decided(before, account(owner_id="globex", provider="workday"))
    forgotten = ("disconnect_requested_at", "disconnect_requested_by", "deletion_witness", "confirmed_by")
    assert [moved.values[name] for name in forgotten] == [None] * 4
    assert kinds(moved) == ["account.owner_changed"] * 2
    left, joined = moved.changes
    assert (left.account_id, left.owner_id, left.provider) == ("a", "acme", "bamboohr")
    assert (joined.account_id, joined.owner_id, joined.provider) == ("a", "globex", "workday")
    # What belongs to nobody tells nobody.
    unowned = decided(row(), account(owner_id=None))
    assert [(change.owner_id, change.changes) for change in unowned.changes] == [("acme", {"owner": "left"})]
    came = decided(row(owner_id=None), account())
    assert [(change.owner_id, change.changes) for change in came.changes] == [("acme", {"owner": "joined"})]
    assert came.outcome is Outcome.APPLIED


def test_who_linked_an_account_is_noted_where_it_is_theirs() -> None:
    named = {"confirmed_at": NOW, "confirmed_by": "user:ann"}

    def confirmed(before: LinkedAccount, ticket: int = 11, **shown: Any) -> dict[str, Any]:
        observation = Observation("a", account(**shown), ticket, confirmed_by="user:ann")
        values = decide(before, observation, NOW).values
        return {name: values[name] for name in named if name in values}

    assert confirmed(row()) == named
    assert confirmed(row(**UNSEEN)) == named
    # An overtaken read and one that is behind show whose it is as well.
    assert confirmed(row(), ticket=9) == named
    assert confirmed(row(), updated_at=EARLIER) == named
    assert confirmed(row(), ticket=9, owner_id="globex") == {}
    assert confirmed(row(deleted_at=NOW), ticket=9) == {}
    # Whoever gets it confirms it at once.
    assert confirmed(row(), owner_id="globex") == named
    missing = Observation("a", None, 9, confirmed_by="user:ann")
    assert decide(row(), missing, NOW).values == {}


def test_needing_somebody_begins_once_and_ends_quietly_where_it_does_not_work() -> None:
    broken = decided(row(remind_at=EARLIER), account(status="error"))
    assert (broken.values["needs_reauth_since"], broken.values["remind_at"]) == (NOW, None)
    assert "recovered_at" not in broken.values
    fixed = decided(row(status="error", needs_reauth_since=EARLIER, remind_at=EARLIER), account())
    assert (fixed.values["needs_reauth_since"], fixed.values["remind_at"], fixed.values["recovered_at"]) == (
        None,
        None,
        NOW,
    )
    recovered = fixed.changes[1]
    assert (recovered.account_id, recovered.owner_id, recovered.provider) == ("a", "acme", "bamboohr")
    paused = decided(row(status="error", needs_reauth_since=EARLIER, remind_at=EARLIER), account(status="suspended"))
    assert (paused.values["needs_reauth_since"], paused.values["remind_at"]) == (None, None)
    assert "recovered_at" not in paused.values
    fine = decided(row(), account(status="inactive"))
    assert "needs_reauth_since" not in fine.values
    told = decided(row(), account(status="error")).changes[1]
    assert (told.account_id, told.owner_id, told.provider) == ("a", "acme", "bamboohr")


def test_an_order_of_reads_begins_somewhere() -> None:
    assert decided(row(read_ticket=None), account(), ticket=0).values["read_ticket"] == 0
    assert decided(row(read_ticket=11), account(), ticket=11).outcome is Outcome.UNCHANGED
    assert decided(row(read_ticket=11), None, ticket=11).outcome is Outcome.UNCONFIRMED
    assert decided(row(updated_at=None), account(), ticket=9).outcome is Outcome.STALE
    assert decided(row(updated_at=None), account()).outcome is Outcome.APPLIED
    assert decided(row(refresh_attempts=2), account(updated_at=EARLIER)).outcome is Outcome.BEHIND


def test_a_witness_stays_where_the_read_does_not_answer_it() -> None:
    leaving = row(deletion_witness="deletion", disconnect_requested_at=EARLIER)
    assert "deletion_witness" not in decided(leaving, account()).values
    doubted = row(deletion_witness="event", refresh_marks=3)
    assert "deletion_witness" not in decide(doubted, Observation("a", account(), 11, marks=2), NOW).values
    assert decide(doubted, Observation("a", account(), 11, marks=3), NOW).values["deletion_witness"] is None


def test_what_is_still_gone_changes_nothing() -> None:
    assert decided(row(deleted_at=NOW), None) == Decision(Outcome.UNCHANGED, {})


def test_only_what_was_seen_again_is_so() -> None:
    before = row()
    again = {"verified_at": LATER, "read_ticket": 99, "status": "active"}
    assert only_seen_again(before, again)
    assert only_seen_again(before, {})
    assert not only_seen_again(before, {**again, "status": "error"})
    assert not only_seen_again(before, {"refresh_due_at": NOW})
