"""How many connections there may be, and which one gives way to a new one: the one that is silent for longest.

uvicorn's limit_concurrency refuses whoever comes last, health probes included, and lets those who are there stay.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Sized
from typing import Protocol

import structlog
from prometheus_client import Counter

from app.settings import HttpSettings

logger = structlog.get_logger(__name__)

# Connections beyond the limit that serve health probes and nothing else.
HEALTH_RESERVE = 16
_LEAST_PER_ADDRESS = 16
# The request of a new connection may lie unread in a loop that is busy with a thousand others.
_GRACE_SECONDS = 2.0
_TOLD_EVERY_SECONDS = 1.0


class Connection(Protocol):
    """What is looked at of a connection."""

    @property
    def address(self) -> str | None:
        """Where it comes from."""

    @property
    def silent_since(self) -> float | None:
        """Since when nothing is done for it: it owes a request or the reading of an answer, or idles between two."""

    @property
    def is_verified(self) -> bool:
        """Whether it idles after the request of somebody whose credential was good."""

    def give_way(self) -> None:
        """End it."""


class Connections(Sized, Iterable[Connection], Protocol):
    """All that are open."""


class Capacity:
    """The places for connections and running requests.

    What is turned away is counted, and told once a second: lines are load too.
    """

    def __init__(self, settings: HttpSettings) -> None:
        """Take the limits over."""
        self._most = settings.max_connections
        self._proxies = settings.proxies
        self._share = max(_LEAST_PER_ADDRESS, self._most // 4)
        self._looked_after: set[str | None] = set()
        self._since_told = 0
        self._told_at = -_TOLD_EVERY_SECONDS
        self.counter: Counter | None = None

    def is_crowded(self, connections: Sized, running: Collection[asyncio.Task[None]]) -> bool:
        """Tell whether only health probes are still served."""
        if len(connections) > self._most:
            return True
        # A task that is done stays in the set for a turn of the loop, in which its client may ask again.
        return len(running) >= self._most and sum(not task.done() for task in running) >= self._most

    def make_room(self, newcomer: Connection, connections: Connections) -> bool:
        """Tell whether a new connection may stay; where all places are taken, a silent one gives way to it.

        That is one of its own address where this has more than its share, so that nobody is locked out by others behind
        the same address. While there are places, what an address has beyond its share ends only once it stays silent.
        """
        is_full = len(connections) > self._most + HEALTH_RESERVE
        address = newcomer.address
        if not is_full:
            if len(connections) > self._share and not self._proxies.hold(address or ""):
                self._look_after(address, connections)
            return True
        own = _silent_of(address, connections, newcomer)
        candidates = own if len(own) >= self._share else _silent(connections, newcomer)
        self.count("a connection")
        if candidates:
            candidates[0].give_way()
        return bool(candidates)

    def _look_after(self, address: str | None, connections: Connections) -> None:
        if address not in self._looked_after:
            self._looked_after.add(address)
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._end_surplus, address, connections)

    def _end_surplus(self, address: str | None, connections: Connections) -> None:
        self._looked_after.discard(address)
        own = _silent_of(address, connections)
        surplus = own[: max(0, len(own) - self._share)]
        latest = asyncio.get_running_loop().time() - _GRACE_SECONDS
        for each in surplus:
            if (each.silent_since or 0.0) <= latest:
                self.count("a connection")
                each.give_way()
        if len(surplus) > 0:
            self._look_after(address, connections)

    def count(self, what: str) -> None:
        """Count what was turned away."""
        self._since_told += 1
        if self.counter is not None:
            self.counter.inc()
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_SECONDS:
            logger.warning(
                "overloaded",
                status=503,
                shed=self._since_told,
                detail=f"{what} came while {self._most} were open, or its address held too many that do nothing",
                remedy="run more replicas, or raise BROKER_HTTP__MAX_CONNECTIONS where CPU is left",
            )
            self._told_at, self._since_told = now, 0


def _silent(connections: Connections, but: Connection | None = None) -> list[Connection]:
    """Return the silent ones, those that are silent for longest first."""
    silent = [(each.silent_since, each) for each in connections if each is not but]
    by_age = sorted(((since, each) for since, each in silent if since is not None), key=lambda one: one[0])
    return [each for _, each in by_age]


def _silent_of(address: str | None, connections: Connections, but: Connection | None = None) -> list[Connection]:
    """Return those of one address that are silent and nobody's whose credential was good."""
    return [each for each in _silent(connections, but) if each.address == address and not each.is_verified]
