"""What is told of changes, to whom, and when what failed is tried again."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from app.linked_accounts.feed import Entry
from app.push import plan
from app.push.messages import ChangeMessage, PingMessage
from app.settings import InvitationSettings, PushDestination, PushSettings

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SETTLE = timedelta(minutes=1)


def entry(position: int, kind: str = "account.updated", account_id: str = "a", **values: Any) -> Entry:
    at = values.pop("at", NOW)
    known = {"owner_id": "acme", "provider": "p", "source": "refresh", "actor": "stackone", "changes": None}
    return Entry(position=position, kind=kind, account_id=account_id, at=at, **{**known, **values})


def broken(position: int, account_id: str = "a", **values: Any) -> Entry:
    return entry(position, "account.needs_reauth", account_id, **values)


def works(position: int, account_id: str = "a", **values: Any) -> Entry:
    return entry(position, "account.recovered", account_id, **values)


def positions(entries: Any) -> list[int]:
    return [one.position for one in entries]


def test_what_may_be_cut_in_the_middle_waits_for_the_next_batch() -> None:
    updates = [entry(1), entry(2), entry(3)]
    assert positions(plan.whole(updates, 3)) == [1, 2]
    assert positions(plan.whole(updates, 4)) == [1, 2, 3]
    assert positions(plan.whole([entry(1), broken(2)], 2)) == [1, 2]
    assert positions(plan.whole([entry(1), entry(2)], 2)) == [1]
    assert positions(plan.whole([entry(1), broken(2), entry(3)], 3)) == [1, 2]
    # A batch of one would never get anywhere.
    assert positions(plan.whole([entry(1)], 1)) == [1]
    assert plan.whole([], 2) == []


@pytest.mark.parametrize("kind", ["account.needs_reauth", "account.recovered"])
def test_one_change_is_one_message(kind: str) -> None:
    assert positions(plan.one_for_each([entry(1), entry(2, kind)])) == [2]
    assert positions(plan.one_for_each([entry(1), entry(2, kind), entry(3), entry(4, "account.unlinked")])) == [2, 3, 4]


@pytest.mark.parametrize(
    "following",
    [
        broken(2, "b"),
        broken(2, at=NOW + timedelta(microseconds=1)),
        broken(3),
        entry(2, "account.owner_changed"),
        entry(2, "account.still_broken"),
        entry(2),
    ],
)
def test_what_does_not_belong_together_is_told_apart(following: Entry) -> None:
    assert not plan.belongs_to(entry(1), following)
    assert len(plan.one_for_each([entry(1), following])) == 2


def test_only_an_update_belongs_to_what_follows() -> None:
    assert plan.belongs_to(entry(1), broken(2))
    assert not plan.belongs_to(entry(1, "account.linked"), broken(2))
    assert not plan.belongs_to(broken(1), works(2))
    assert plan.one_for_each([]) == []


@pytest.mark.parametrize(
    ("events", "owners", "wanted"),
    [
        ((), (), True),
        (("account.updated",), (), True),
        (("account.*",), ("acme",), True),
        (("account.linked",), (), False),
        (("account.linked",), ("acme",), False),
        ((), ("acme", "globex"), True),
        ((), ("glob*", "a*e"), True),
        ((), ("globex",), False),
        (("account.updated",), ("globex",), False),
    ],
)
def test_a_destination_is_told_what_it_wants(events: tuple[str, ...], owners: tuple[str, ...], *, wanted: bool) -> None:
    destination = PushDestination(
        name="crm", url="https://crm.example", secret=SecretStr("s"), events=events, owners=owners
    )
    assert plan.wants(destination, entry(1)) is wanted
    # What is nobody's is told to those alone who are told of everybody.
    assert plan.wants(destination, replace(entry(1), owner_id=None)) is (wanted and not owners)


def test_what_breaks_and_works_again_at_once_is_told_to_nobody() -> None:
    def told(*messages: Entry, settling: tuple[str, ...] = ()) -> list[int]:
        return positions(plan.without_flaps(messages, settling, SETTLE))

    soon, late = NOW + timedelta(seconds=59), NOW + SETTLE
    assert told(broken(1), works(2, at=soon)) == []
    assert told(broken(1), works(2, at=late)) == [1, 2]
    assert told(broken(1), broken(2, "b"), works(3, at=soon)) == [2]
    assert told(broken(1), works(2, at=soon), broken(3, "b"), works(4, "b", at=soon)) == []
    # It is the last breaking that counts, and one recovery ends it.
    assert told(broken(1), broken(2, at=late), works(3, at=late)) == [1]
    assert told(broken(1), works(2, at=soon), works(3, at=soon)) == [3]
    assert told(works(1)) == [1]
    assert told(entry(1), entry(2, "account.unlinked")) == [1, 2]
    # What waits in the outbox is dropped there, and its recovery here.
    assert told(works(1, at=late), settling=("a",)) == []
    assert told(works(1), settling=("b",)) == [1]
    assert told(entry(1), works(2), settling=("a",)) == [1]


@pytest.mark.parametrize(
    ("attempts", "retry_after", "least", "most"),
    [
        (0, None, 2.5, 5),
        (1, None, 5, 10),
        (0, 60.0, 60, 60),
        (0, 864_000.0, 100, 100),
        (3, 1.0, 20, 40),
        (9, None, 50, 100),
    ],
)
def test_what_failed_is_tried_again_later(attempts: int, retry_after: float | None, least: float, most: float) -> None:
    settings = PushSettings(max_attempts=11, backoff_seconds=5, max_backoff_seconds=100)
    for seed in range(20):
        at = plan.retry_at(attempts, retry_after, settings=settings, now=NOW, jitter=random.Random(seed))  # noqa: S311
        assert at is not None
        assert least <= (at - NOW).total_seconds() <= most


def test_a_delivery_is_given_up_after_its_last_attempt() -> None:
    settings = PushSettings(max_attempts=3)
    chance = random.Random(1)  # noqa: S311  no secret
    tries = [plan.retry_at(attempts, None, settings=settings, now=NOW, jitter=chance) for attempts in range(5)]
    assert [at is None for at in tries] == [False, False, True, True, True]


def test_a_message_tells_the_change_with_the_fields_that_changed() -> None:
    fields = {"status": {"from": "active", "to": "error"}}
    entries = [entry(4, changes=fields), broken(5, changes={"status": "error"})]
    message = ChangeMessage.of(entries, 5, InvitationSettings())
    assert (message.type, message.timestamp, message.data.position) == ("account.needs_reauth", NOW, 5)
    assert message.data.changes == fields
    alone = ChangeMessage.of([entry(4, account_id="b", changes=fields), entries[1]], 5, InvitationSettings())
    assert alone.data.changes == {"status": "error"}
    assert ChangeMessage.of(entries, 4, InvitationSettings()).data.changes == fields


def test_a_test_message_names_its_destination() -> None:
    message = PingMessage.at(NOW, "crm")
    assert (message.type, message.timestamp, message.data.destination) == ("test", NOW, "crm")
