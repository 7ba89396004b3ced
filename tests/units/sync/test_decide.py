"""What a reading of StackOne does to a row: a pure decision, looked at case by case."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.linked_accounts.changes import Source, Witness
from app.linked_accounts.decide import Decision, Observation, Removal, decide
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
