"""The load: mints, lists, webhooks and sweeps through the front door, and what was acknowledged.

A webhook is sent as StackOne sends one: again and again until it is answered 200.
"""

import asyncio
import hashlib
import json
import random
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile
from typing import Any, Final

import aiohttp

from sandbox.stackone.signing import sign
from tests.endurance.stand import OWNERS, Stand
from tests.support.world import WEBHOOK_SECRET

_DEADLINE: Final = aiohttp.ClientTimeout(total=60)
_SWEEP_EVERY_SECONDS: Final = 2.0
_SERVER_BUSY, _TOO_MANY = 503, 429


class Kind(Enum):
    """What a request is for."""

    MINT = "mint"
    LIST = "list"
    WEBHOOK = "webhook"
    SWEEP = "sweep"


_SUCCESS: Final = {Kind.MINT: 201, Kind.LIST: 200, Kind.WEBHOOK: 200, Kind.SWEEP: 202}


@dataclass(frozen=True)
class Refusal:
    """One answer that was no success."""

    kind: Kind
    status: int | None
    """None: no answer at all."""
    begun: float
    ended: float
    said: str


@dataclass
class Successes:
    """When requests of one kind began and ended that were answered as they should be."""

    begun: "array[float]" = field(default_factory=lambda: array("d"))
    ended: "array[float]" = field(default_factory=lambda: array("d"))

    def first_since(self, moment: float) -> float | None:
        """Return when the first of those ended that began after a moment."""
        pairs = zip(reversed(self.begun), reversed(self.ended), strict=True)
        # They were written down in the order in which they ended.
        recent = takewhile(lambda pair: pair[1] >= moment, pairs)
        return min((ended for begun, ended in recent if begun >= moment), default=None)


@dataclass
class Record:
    """What became of everything that was asked."""

    sessions: set[str] = field(default_factory=set)
    digests: set[bytes] = field(default_factory=set)
    sweeps: set[int] = field(default_factory=set)
    successes: dict[Kind, Successes] = field(default_factory=lambda: defaultdict(Successes))
    refusals: list[Refusal] = field(default_factory=list)
    wrong: list[Refusal] = field(default_factory=list)
    """Neither success nor a refusal that says when to come back."""
    statuses: Counter[tuple[Kind, int | None]] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """How many answers there were."""
        return self.statuses.total()

    def told(self) -> list[str]:
        """Spell what came of it."""
        answers = sorted((kind.value, status or 0, count) for (kind, status), count in self.statuses.items())
        counted = ", ".join(f"{kind} {status or 'none'}: {count:,}" for kind, status, count in answers)
        acknowledged = f"{len(self.sessions):,} sessions, {len(self.digests):,} webhooks, {len(self.sweeps):,} sweeps"
        return [f"Answers: {counted}.", f"Acknowledged: {acknowledged}."]

    def refused_between(self, begin: float, end: float) -> list[Refusal]:
        """Return the refusals of requests that began in a span of time."""
        return [refusal for refusal in self.refusals if begin <= refusal.begun < end]


class Load:
    """Asks, and keeps the record."""

    def __init__(
        self,
        stand: Stand,
        http: aiohttp.ClientSession,
        *,
        chance: random.Random | None = None,
        again_seconds: float = 0.5,
    ) -> None:
        """Ask nothing yet."""
        self.record = Record()
        self.chance = chance or random.Random(14)  # noqa: S311  no secret
        self.in_flight = 0
        self._again_seconds = again_seconds
        self._stand = stand
        self._http = http
        self._service = {"authorization": f"Bearer {stand.service_key}"}
        self._users = [{"authorization": f"Bearer {stand.token(number)}"} for number in range(OWNERS)]
        self._number = 0
        self.is_over = asyncio.Event()

    def renew_tokens(self) -> None:
        """Have users come with tokens made now, by the issuer's key of now."""
        self._users = [{"authorization": f"Bearer {self._stand.token(number)}"} for number in range(OWNERS)]

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def mint(self) -> bool:
        """Open a session as a user; tell whether that was answered as it should be."""
        user = self._users[self._next() % OWNERS]
        answer = await self._ask(Kind.MINT, "POST", "/v1/connect-sessions", user, b'{"provider":"hibob"}')
        if answer is not None:
            self.record.sessions.add(answer["id"])
        return answer is not None

    async def list_accounts(self) -> bool:
        """List a user's accounts."""
        user = self._users[self._next() % OWNERS]
        return await self._ask(Kind.LIST, "GET", "/v1/linked-accounts", user) is not None

    async def webhook(self, *, changes: bool = True) -> None:
        """Change an account at StackOne, or not, and tell the broker until it has heard it."""
        number = self._next()
        account_id = self._stand.accounts[number % len(self._stand.accounts)]
        if changes:
            await self._stand.switch("PATCH", f"/accounts/{account_id}", {"label": f"change {number}"})
        event = {"event": "account.updated", "account_id": account_id, "provider": "bamboohr", "sent_at": str(number)}
        await self.deliver(event)

    async def deliver(self, event: Mapping[str, Any]) -> None:
        """Send a signed event until it is acknowledged; after the end of the load too."""
        body = json.dumps(event).encode()
        headers = {"x-stackone-signature": sign(body, WEBHOOK_SECRET)}
        address = "/v1/webhooks/stackone"
        while await self._ask(Kind.WEBHOOK, "POST", address, headers, body) is None:  # noqa: ASYNC110  as StackOne does
            await asyncio.sleep(self._again_seconds)
        self.record.digests.add(hashlib.sha256(body).digest())

    async def sweep(self) -> None:
        """Ask for a sweep."""
        answer = await self._ask(Kind.SWEEP, "POST", "/v1/sync", self._service, b"{}")
        if answer is not None:
            self.record.sweeps.add(answer["id"])

    async def keep_sweeping(self, every: float = _SWEEP_EVERY_SECONDS) -> None:
        """Ask for a sweep every few seconds, until the load is over."""
        while not self.is_over.is_set():
            await self.sweep()
            await self.pause(every)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the load."""
        try:
            async with asyncio.timeout(seconds):
                await self.is_over.wait()
        except TimeoutError:
            return

    async def _ask(
        self, kind: Kind, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Any:
        """Make one request; return what a success says, None for anything else."""
        begun = time.monotonic()
        if body is not None:
            headers = {**headers, "content-type": "application/json"}
        status, said, retry_after = None, b"", None
        self.in_flight += 1
        try:
            async with self._http.request(method, self._stand.url + path, headers=headers, data=body) as answer:
                said = await answer.read()
                status, retry_after = answer.status, answer.headers.get("retry-after")
        except (aiohttp.ClientError, TimeoutError) as error:
            said = repr(error).encode()
        finally:
            self.in_flight -= 1
        ended = time.monotonic()
        self.record.statuses[kind, status] += 1
        if status == _SUCCESS[kind]:
            successes = self.record.successes[kind]
            successes.begun.append(begun)
            successes.ended.append(ended)
            return json.loads(said)
        refusal = Refusal(kind, status, begun, ended, said[:600].decode("utf-8", "replace"))
        self.record.refusals.append(refusal)
        if status not in {_SERVER_BUSY, _TOO_MANY} or retry_after is None:
            self.record.wrong.append(refusal)
        return None
