"""What a sweep has to do, and what it has done."""

from datetime import UTC, datetime, timedelta

import pytest

from app.linked_accounts.changes import Change, Kind
from app.linked_accounts.decide import Decision, Outcome
from app.stackone.models import Account
from app.sync import plan
from app.sync.runs import Sweep
from app.sync.tables import SweepState

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def account(account_id: str, owner_id: str | None = "acme") -> Account:
    values = {"id": account_id, "provider": "p", "status": "active", "updated_at": NOW, "owner_id": owner_id}
    return Account.model_validate(values)


@pytest.mark.parametrize(
    ("ago", "is_time"),
    [
        (None, True),
        (timedelta(minutes=59, seconds=59), False),
        (HOUR, True),
        (timedelta(0), False),
        (-HOUR, False),
        (-HOUR - timedelta(seconds=1), True),
    ],
)
def test_when_the_clock_asks_for_a_sweep(ago: timedelta | None, *, is_time: bool) -> None:
    finished_at = None if ago is None else NOW - ago
    assert plan.is_time(finished_at, NOW, interval=HOUR) is is_time
    assert not plan.is_time(finished_at, NOW, interval=timedelta(0))


@pytest.mark.parametrize(
    ("tried", "retry_after", "seconds"),
    [(1, None, 2), (2, None, 4), (3, None, 8), (1, 7.0, 7), (3, 7.0, 8), (1, 300.0, 60), (9, None, 60), (1, 0.0, 2)],
)
def test_how_long_a_failed_call_is_waited_out(tried: int, retry_after: float | None, seconds: float) -> None:
    assert plan.pause(tried, retry_after, first=2, longest=60) == seconds


def test_a_short_pause_stays_short() -> None:
    assert plan.pause(1, None, first=0.1, longest=60) == 0.1


def test_a_page_that_shows_one_account_as_two_owners_contradicts_itself() -> None:
    page = [account("1"), account("2"), account("1", "globex"), account("3", None), account("2"), account("3")]
    assert plan.contradicted(page) == {"1", "3"}
    assert plan.contradicted([]) == set()


def test_whose_an_account_is_is_not_taken_from_a_list_alone() -> None:
    listed = {"1": account("1"), "2": account("2", "globex"), "3": account("3", None), "4": account("4")}
    assert plan.doubtful(listed, {"1": "acme", "2": "acme", "3": None}, set(), []) == ["2"]
    assert plan.doubtful(listed, {"3": "acme", "1": None}, {"4"}, []) == ["1", "4"]
    # What is buried is asked for in any case.
    assert plan.doubtful(listed, {"2": "acme"}, {"4", "1"}, ["4"]) == ["1", "2"]
    assert plan.doubtful(listed, {}, set(), []) == []


def test_a_page_is_taken_in_by_parts() -> None:
    page = {str(number): account(str(number)) for number in range(1001)}
    parts = plan.parted(page)
    assert [len(part) for part in parts] == [500, 500, 1]
    assert {name: found for part in parts for name, found in part.items()} == page
    assert [len(part) for part in plan.parted(dict(list(page.items())[:500]))] == [500]
    assert plan.parted({}) == [{}]
    assert [list(part) for part in plan.parted({"1": page["1"]})] == [["1"]]


def test_a_sweep_counts_what_it_did_on_top_of_what_it_had_done() -> None:
    sweep = Sweep(
        id=1, state=SweepState.RUNNING, requested_by="test", requested_at=NOW, started_at=NOW, finished_at=None,
        max_removal_percent=None, start_ticket=1, next_page=3, complete=None, last_suspect=None, listed=10, added=20,
        changed=30, removed=40, suspects=50, reason=None,
    )  # fmt: skip
    linked = (Change(Kind.LINKED, "1", "acme", "p"),)
    decisions = {
        "new": Decision(Outcome.APPLIED, {}, linked),
        "revived": Decision(Outcome.REVIVED, {}, linked),
        "edited": Decision(Outcome.APPLIED, {}),
        "moved": Decision(Outcome.APPLIED, {}),
        "third": Decision(Outcome.APPLIED, {}),
        "same": Decision(Outcome.UNCHANGED, {}),
        "stale": Decision(Outcome.STALE, {}),
        "gone": Decision(Outcome.GONE, {}),
        "unconfirmed": Decision(Outcome.UNCONFIRMED, {}),
    }
    after = plan.counted(sweep, decisions, listed=7)
    assert (after.listed, after.added, after.changed, after.removed) == (17, 22, 33, 41)
    assert (after.suspects, after.next_page, after.drift) == (50, 3, 96)
    assert plan.counted(sweep, {}, listed=0) == sweep
