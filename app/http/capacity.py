"""How many connections there may be, and which one gives way to a new one: the one that is silent for longest.

uvicorn's limit_concurrency refuses whoever comes last, health probes included, and lets those who are there stay.
"""

import time
from collections.abc import Iterable, Sized
from typing import Protocol

import structlog
from prometheus_client import Counter

from app.settings import HttpSettings

logger = structlog.get_logger(__name__)

# Connections beyond the limit that serve health probes and nothing else.
HEALTH_RESERVE = 16
_LEAST_PER_ADDRESS = 16
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
        self._since_told = 0
        self._told_at = -_TOLD_EVERY_SECONDS
        self.counter: Counter | None = None

    def is_crowded(self, connections: Sized, running: Sized) -> bool:
        """Tell whether only health probes are still served."""
        return len(connections) > self._most or len(running) >= self._most

    def make_room(self, newcomer: Connection, connections: Connections) -> bool:
        """Tell whether a new connection may stay; a silent one gives way to it where there are too many.

        Its own address's gives way where that has more than its share, so that nobody is locked out by others
        behind the same address; and anybody's where the reserve is used up too.
        """
        is_full = len(connections) > self._most + HEALTH_RESERVE
        address = newcomer.address
        if not is_full and (len(connections) <= self._share or self._proxies.hold(address or "")):
            return True
        silent = [(each.silent_since, each) for each in connections if each is not newcomer]
        candidates = [(since, each) for since, each in silent if since is not None]
        own = [(since, each) for since, each in candidates if each.address == address and not each.is_verified]
        if len(own) >= self._share:
            candidates = own
        elif not is_full:
            return True
        self.count("a connection")
        if not candidates:
            return False
        min(candidates, key=lambda candidate: candidate[0])[1].give_way()
        return True

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
