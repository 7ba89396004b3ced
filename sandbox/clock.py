"""Time: a clock is passed in, and where an order matters no two moments are the same."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

_ONE_TICK = timedelta(milliseconds=1)


def system_clock() -> datetime:
    """Return the wall clock as an aware UTC datetime."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Write a moment the way StackOne does: UTC, milliseconds, `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Ticker:
    """A clock that is strictly increasing in the milliseconds that are written out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = datetime.min.replace(tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return a moment later than every one returned before."""
        now = self._clock().astimezone(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self._last = max(now, self._last + _ONE_TICK)
        return self._last
