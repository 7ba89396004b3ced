"""The circuit breaker: after enough failures in a row no call is made for a while, and then one tries for all.

Health is judged over operations and ids. A connection that cannot be made says something about StackOne whoever asks,
so each such failure counts. A bad answer may be the fault of what was asked for: an operation on one id counts once,
however often it fails, so that one user with one broken account cannot cut everybody off.
"""

from collections.abc import Callable
from enum import Enum, auto

from app.clock import Clock


class BreakerState(Enum):
    """Whether calls are made."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()
    """The pause is over, and one call finds out whether StackOne is back."""


class BreakerOpen(Exception):
    """No call is made until `retry_after` seconds from now."""

    def __init__(self, retry_after: float) -> None:
        """Keep the wait."""
        super().__init__("calls to StackOne are paused")
        self.retry_after = retry_after


class Breaker:
    """Counts failures between two successes."""

    def __init__(
        self, failures: int, open_seconds: float, *, clock: Clock, on_change: Callable[[BreakerState], None]
    ) -> None:
        """Open after `failures`, for `open_seconds`; `on_change` is told of each new state."""
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._opened_at = 0.0
        self._failures = 0
        self._failed: set[tuple[str, str]] = set()
        self._is_probing = False

    @property
    def state(self) -> BreakerState:
        """Whether calls are made at this moment."""
        return self._state

    def admit(self) -> None:
        """Let a call through, or raise BreakerOpen. Each call let through ends in one of the next three."""
        if self._state is BreakerState.CLOSED:
            return
        left = self._opened_at + self._open_seconds - self._clock.monotonic()
        if left > 0 or self._is_probing:
            raise BreakerOpen(max(left, 1.0))
        self._is_probing = True
        self._change(BreakerState.HALF_OPEN)

    def succeeded(self) -> None:
        """StackOne answered, whatever it said."""
        self._failures = 0
        self._failed.clear()
        self._is_probing = False
        self._change(BreakerState.CLOSED)

    def failed(self, operation: str, subject: str | None) -> None:
        """Count a failure: each one where `subject` is None, else one for each operation and subject."""
        if self._state is BreakerState.HALF_OPEN:
            self._open()
            return
        if subject is not None:
            if (operation, subject) in self._failed:
                return
            self._failed.add((operation, subject))
        self._failures += 1
        if self._failures >= self._limit and self._state is BreakerState.CLOSED:
            self._open()

    def abandoned(self) -> None:
        """Whoever waited for the answer has gone: that says nothing about StackOne, and another call may try."""
        self._is_probing = False

    def _open(self) -> None:
        self._is_probing = False
        self._opened_at = self._clock.monotonic()
        self._failures = 0
        self._failed.clear()
        self._change(BreakerState.OPEN)

    def _change(self, state: BreakerState) -> None:
        if state is not self._state:
            self._state = state
            self._on_change(state)
