"""The keys of one issuer: fetched as rarely as possible, kept for as long as is safe."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import jwt
import structlog

from app.clock import Clock
from app.errors import Unavailable
from app.identity.refusal import Refused
from app.identity.tokens.jwks import KeySet, UnusableKeySet, parse_key_set
from app.metrics import Metrics

logger = structlog.get_logger(__name__)

_FIRST_COOLDOWN_SECONDS: Final = 1.0
_MOST_DOUBLINGS: Final = 10

FetchKeys = Callable[[], Awaitable[bytes]]


class KeysUnreachable(Exception):
    """The keys could not be fetched; the text is ours and fit for a log."""


@dataclass(frozen=True)
class KeyRingTimes:
    """How long keys are good for, in seconds."""

    cooldown: float
    fresh: float
    stale: float


class KeyRing:
    """One issuer's keys. However many requests need them, at most one fetch runs, and at most one per cooldown."""

    def __init__(
        self,
        fetch: FetchKeys,
        *,
        issuer: str,
        algorithms: Sequence[str],
        times: KeyRingTimes,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        """`fetch` answers a JWKS document; nothing is fetched before a key is asked for."""
        self.issuer = issuer
        self.problem: str | None = None
        """Why the last fetch failed; None if it did not, or none was made."""
        self._fetch = fetch
        self._algorithms = tuple(algorithms)
        self._times = times
        self._clock = clock
        self._keys: KeySet | None = None
        self._document: bytes | None = None
        self._fetched_at = 0.0
        self._attempted_at: float | None = None
        self._failures = 0
        self._flight: asyncio.Task[None] | None = None
        self._metrics = metrics
        if metrics is not None:
            for outcome in ("fetched", "failed"):
                metrics.key_fetches.labels(issuer, outcome)
            metrics.keys_known.labels(issuer).set_function(lambda: float(self.has_keys))
            metrics.keys_age.labels(issuer).set_function(lambda: self._age() if self._keys is not None else 0.0)

    @property
    def has_keys(self) -> bool:
        """Say whether tokens can be verified without asking the issuer."""
        return self._usable() is not None

    @property
    def fresh(self) -> KeySet | None:
        """The keys, while a token may be verified with them without asking the issuer first.

        The same object for as long as the issuer publishes the same keys.
        """
        return self._keys if self._age() <= self._times.fresh else None

    @property
    def left_out(self) -> Sequence[str]:
        """Which published keys are not used, and why."""
        return () if self._keys is None else self._keys.left_out

    async def warm(self) -> None:
        """Fetch the keys if there are none that may be used; never raises, see `problem`."""
        if self._usable() is None:
            await self._refresh()

    async def warm_until_known(self) -> None:
        """Fetch the keys, again and again until they are there for the first time."""
        while self._keys is None:
            await self._refresh()
            if self._keys is None:
                await asyncio.sleep(max(self._cooldown_left(), _FIRST_COOLDOWN_SECONDS))

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """Return the keys that may have signed a token.

        Raises Refused if there is none, Unavailable if that cannot be known now.
        """
        if self._usable() is None:
            await self._refresh()
        elif self._age() > self._times.fresh:
            # After hours without a request a key may have been withdrawn, so this request waits for a fetch. Once a
            # fetch has failed no request waits: a hanging issuer would stall all of them, once per cooldown.
            failing = self.problem is not None
            flight = self._start_fetch()
            if flight is not None and not failing:
                await asyncio.shield(flight)
        keys = self._look_up(key_id, algorithm)
        if not keys:
            # It may have been published since. Anyone can invent key ids, so the fetch keeps to the cooldown.
            await self._refresh()
            keys = self._look_up(key_id, algorithm)
        if keys:
            return keys
        if self.problem is not None:
            # The issuer is away: this may well be its newest key, and a 401 would log a rightful user out.
            message = "the identity provider cannot be reached"
            if "certificate" in self.problem:
                message = f"{message}: {self.problem.partition(': ')[2]}"
            raise Unavailable(
                message,
                retry_after=self._cooldown_left(),
                remedy=f"see that this machine reaches {self.issuer} (issuer_keys_not_fetched says what happened)",
            )
        reason = "the issuer publishes no key for this token"
        raise Refused(reason)

    async def close(self) -> None:
        """Give up a fetch that is still running."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    def _usable(self) -> KeySet | None:
        return self._keys if self._age() <= self._times.stale else None

    def _look_up(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        keys = self._usable()
        return () if keys is None else keys.find(key_id, algorithm)

    def _cooldown_left(self) -> float:
        if self._attempted_at is None:
            return 0.0
        return max(0.0, self._attempted_at + self._cooldown() - self._clock.monotonic())

    def _cooldown(self) -> float:
        if self._keys is not None or not self._failures:
            return self._times.cooldown
        # As long as there were no keys at all nobody can sign in, as on a replica that starts while the issuer does.
        return min(self._times.cooldown, _FIRST_COOLDOWN_SECONDS * 2.0 ** min(self._failures - 1, _MOST_DOUBLINGS))

    async def _refresh(self) -> None:
        flight = self._start_fetch()
        if flight is not None:
            # Shielded: one caller who hangs up must not cancel the fetch that all the others are waiting for.
            await asyncio.shield(flight)

    def _start_fetch(self) -> asyncio.Task[None] | None:
        """Join the running fetch, or begin one unless the last one (good or bad) is too recent."""
        if self._flight is not None and not self._flight.done():
            return self._flight
        if self._cooldown_left() > 0:
            return None
        self._attempted_at = self._clock.monotonic()
        self._flight = asyncio.create_task(self._fetch_once(), name="jwks-fetch")
        return self._flight

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.key_fetches.labels(self.issuer, outcome).inc()

    async def _fetch_once(self) -> None:
        """Replace the keys by what the issuer answers; on any failure the last good ones stay."""
        try:
            document = await self._fetch()
            unchanged = self._keys if document == self._document else None
            keys = unchanged or parse_key_set(document, self._algorithms, of_many="{" in self.issuer)
        except (KeysUnreachable, UnusableKeySet) as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001  an issuer's answer, whatever it is, must not become our 500
            self.problem = f"unexpected {type(error).__name__}"
        else:
            if keys.left_out and keys.left_out != self.left_out:
                logger.info("issuer_keys_left_out", issuer=self.issuer, left_out=list(keys.left_out))
            self._keys, self._document = keys, document
            self._fetched_at, self.problem, self._failures = self._clock.monotonic(), None, 0
            self._count("fetched")
            return
        self._failures += 1
        self._count("failed")
        logger.warning("issuer_keys_not_fetched", issuer=self.issuer, problem=self.problem, has_keys=self.has_keys)
