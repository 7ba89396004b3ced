"""Turns at the connections to StackOne: while all are in use, those who wait get them one owner after another.

In order of arrival, one owner's thousand calls would be answered before another's first.
"""

import asyncio
from collections import OrderedDict, deque


class Turns:
    """Hands out as many places as there are connections."""

    def __init__(self, places: int) -> None:
        """All places are free."""
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, who: str) -> None:
        """Have a place, at once or when it is `who`'s turn; `give_back` ends it."""
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The place came in the same moment.
                self.give_back()
            else:
                self._leave(who, turn)
            raise

    def give_back(self) -> None:
        """Pass a place on to whoever is next."""
        while self._waiting:
            who, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[who] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, who: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(who)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[who]
