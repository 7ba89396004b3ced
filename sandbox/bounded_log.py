"""A numbered list that forgets its oldest entries, read in pages of `?after=`."""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class BoundedLog(Generic[Entry]):
    """Entries numbered from 1; the numbers go on where old entries are forgotten, and through a reset."""

    def __init__(self, size: int) -> None:
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=size)
        self._last = 0

    def append(self, make: Callable[[int], Entry]) -> Entry:
        """Keep what `make` returns for the next number."""
        self._last += 1
        entry = make(self._last)
        self._entries.append((self._last, entry))
        return entry

    def after(self, number: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries with a number above `number`, oldest first."""
        return list(islice((entry for n, entry in self._entries if n > number), limit))

    def get(self, number: int) -> Entry | None:
        """Return the entry with that number while it is still kept."""
        return next((entry for n, entry in self._entries if n == number), None)

    def clear(self) -> None:
        """Forget the entries, not the count."""
        self._entries.clear()
