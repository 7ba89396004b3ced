"""Ids that are nothing to an owner, by StackOne's word of a moment ago: asking again at once costs no second call.

For a few seconds only: a page confirms an account as soon as it is linked, which may be before StackOne shows it.
"""

from collections import OrderedDict
from typing import Final

from app.clock import Clock

_SECONDS: Final = 3.0
_MOST: Final = 10_000


class UnknownIds:
    """Remembers, in this process, which owner was told of which id that there is no such account for it."""

    def __init__(self, clock: Clock) -> None:
        """Know of none yet."""
        self._clock = clock
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def has(self, owner_id: str, account_id: str) -> bool:
        """Tell whether StackOne said so within the last seconds."""
        return self._until.get((owner_id, account_id), 0.0) > self._clock.monotonic()

    def add(self, owner_id: str, account_id: str) -> None:
        """Note that StackOne knows no such account."""
        self._until[owner_id, account_id] = self._clock.monotonic() + _SECONDS
        self._until.move_to_end((owner_id, account_id))
        while len(self._until) > _MOST:
            self._until.popitem(last=False)

    def forget(self, account_id: str) -> None:
        """Forget an id that StackOne has told of since."""
        for key in [key for key in self._until if key[1] == account_id]:
            del self._until[key]
