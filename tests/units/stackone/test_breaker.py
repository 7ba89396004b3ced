"""The circuit breaker, and what is remembered of ids that are nothing."""

import pytest

from app.stackone.breaker import Breaker, BreakerOpen, BreakerState
from app.stackone.unknown_ids import UnknownIds
from tests.support.tokens import StoppedClock


class Watched:
    """A breaker that opens at three failures, for ten seconds."""

    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.states: list[BreakerState] = []
        self.breaker = Breaker(3, 10, clock=self.clock, on_change=self.states.append)

    def open(self) -> None:
        """Have it open."""
        for _ in range(3):
            self.breaker.failed("get_account", None)
        assert self.breaker.state is BreakerState.OPEN

    def wait(self) -> float:
        """Return how long whoever is refused is to wait."""
        with pytest.raises(BreakerOpen, match="calls to StackOne are paused") as refused:
            self.breaker.admit()
        return refused.value.retry_after


def test_it_opens_at_its_limit_and_says_for_how_long() -> None:
    watched = Watched()
    assert watched.breaker.state is BreakerState.CLOSED
    for _ in range(2):
        watched.breaker.admit()
        watched.breaker.failed("get_account", None)
    watched.breaker.admit()
    watched.breaker.failed("get_account", None)
    assert watched.states == [BreakerState.OPEN]
    assert watched.wait() == 10
    watched.clock.advance(7)
    assert watched.wait() == 3
    watched.clock.advance(2.5)
    assert watched.wait() == 1
    watched.clock.advance(0.5)
    watched.breaker.admit()
    assert watched.states == [BreakerState.OPEN, BreakerState.HALF_OPEN]


def test_one_thing_counts_once_until_something_succeeds() -> None:
    watched = Watched()
    for _ in range(5):
        watched.breaker.failed("get_account", "a")
        watched.breaker.failed("get_account", "b")
    assert watched.states == []
    watched.breaker.succeeded()
    assert watched.states == []
    watched.breaker.failed("get_account", "a")
    watched.breaker.failed("get_account", "b")
    watched.breaker.failed("mint", "a")
    assert watched.states == [BreakerState.OPEN]


def test_failures_while_it_is_open_do_not_open_it_anew() -> None:
    watched = Watched()
    watched.open()
    watched.clock.advance(9)
    for _ in range(3):
        watched.breaker.failed("get_account", None)
    assert watched.wait() == 1
    assert watched.states == [BreakerState.OPEN]
    watched.breaker.succeeded()
    assert watched.breaker.state is BreakerState.CLOSED
    # What failed before it opened is forgotten.
    watched.open()
    watched.breaker.succeeded()
    for _ in range(2):
        watched.breaker.failed("get_account", None)
    assert watched.breaker.state is BreakerState.CLOSED


def test_one_call_tries_for_all() -> None:
    watched = Watched()
    watched.open()
    watched.clock.advance(10)
    watched.breaker.admit()
    assert watched.wait() == 1
    watched.breaker.abandoned()
    watched.breaker.admit()
    watched.breaker.failed("get_account", "a")
    assert watched.wait() == 10
    watched.clock.advance(10)
    watched.breaker.admit()
    watched.breaker.succeeded()
    watched.breaker.admit()
    watched.breaker.admit()
    changes = [state.name for state in watched.states]
    assert changes == ["OPEN", "HALF_OPEN", "OPEN", "HALF_OPEN", "CLOSED"]


def test_the_same_subject_counts_again_once_it_has_opened() -> None:
    watched = Watched()
    for subject in "abc":
        watched.breaker.failed("get_account", subject)
    watched.clock.advance(10)
    watched.breaker.admit()
    watched.breaker.succeeded()
    for subject in "abc":
        watched.breaker.failed("get_account", subject)
    assert watched.breaker.state is BreakerState.OPEN


def test_an_unknown_id_is_remembered_for_a_moment_and_for_its_owner_alone() -> None:
    clock = StoppedClock()
    ids = UnknownIds(clock)
    ids.add("acme", "1")
    assert ids.has("acme", "1")
    assert not ids.has("globex", "1")
    assert not ids.has("acme", "2")
    clock.advance(2.9)
    assert ids.has("acme", "1")
    ids.add("acme", "1")
    clock.advance(2.9)
    assert ids.has("acme", "1")
    clock.advance(0.1)
    assert not ids.has("acme", "1")


def test_what_stackone_has_told_of_since_is_asked_for_again() -> None:
    ids = UnknownIds(StoppedClock())
    for owner in ("acme", "globex"):
        ids.add(owner, "1")
        ids.add(owner, "2")
    ids.forget("1")
    assert [ids.has(owner, account) for owner in ("acme", "globex") for account in "12"] == [False, True] * 2


def test_only_so_many_are_remembered_the_oldest_is_forgotten_first() -> None:
    ids = UnknownIds(StoppedClock())
    for number in range(10_000):
        ids.add("acme", str(number))
    ids.add("acme", "0")
    ids.add("acme", "last")
    assert [ids.has("acme", name) for name in ("0", "1", "2", "last")] == [True, False, True, True]
