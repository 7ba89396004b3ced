"""The deliverer: sends every account event to one URL, in the mode that is set."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import httpx2
from pydantic import Field

from sandbox.bodies import Body, Text
from sandbox.bounded_log import BoundedLog
from sandbox.clock import Clock, iso
from sandbox.errors import ApiError
from sandbox.stackone.deliveries import Answer, Delivery, Mode

_KEPT_DELIVERIES = 10_000


class WebhookChange(Body):
    """What the switch may change; what it leaves out stays as it is."""

    mode: Mode | None = None
    delay_ms: Annotated[float, Field(ge=0)] | None = None
    secret: Text | None = None
    url: Annotated[str, Field(pattern="^https?://")] | None = None
    with_owner: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """Where events go, how they are signed, and how patiently they are repeated.

    StackOne documents no schedule: retries on silence and 5xx are inferred, these numbers are the sandbox's own.
    """

    url: str | None = None
    secret: str
    mode: Mode = "deliver"
    delay_ms: float = 1000
    with_owner: bool = True
    retry_delays: tuple[float, ...] = (0.5, 1, 2, 4, 8)
    timeout: float = 5
    hold_seconds: float = 0.5


class Deliverer:
    """Sends events one after the other; repetitions of a failed one run beside the others."""

    def __init__(
        self, settings: DeliverySettings, *, clock: Clock, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Wait for `run`; `transport` replaces the network."""
        self._initial = settings
        self.settings = settings
        self.log: BoundedLog[Delivery] = BoundedLog(_KEPT_DELIVERIES)
        self._clock = clock
        self._transport = transport
        self._outbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self._held: Delivery | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._repetitions: set[asyncio.Task[None]] = set()
        self._open: set[int] = set()
        self._settled = asyncio.Event()
        self._settled.set()

    def emit(self, payload: Mapping[str, object]) -> None:
        """Take one event; the mode decides what happens to it."""
        settings = self.settings
        delivery = self._write_down(payload)
        if settings.url is None or settings.mode == "drop":
            delivery.state = "dropped"
            return
        self._opened(delivery)
        match settings.mode:
            case "delay":
                self._later(settings.delay_ms / 1000, lambda: self._outbox.put_nowait(delivery))
            case "reorder":
                self._hold_or_send_first(delivery)
            case "duplicate":
                self._outbox.put_nowait(delivery)
                twin = self._write_down(payload)
                self._opened(twin)
                self._outbox.put_nowait(twin)
            case _:
                self._outbox.put_nowait(delivery)

    def change(self, wanted: WebhookChange) -> DeliverySettings:
        """Change what is named, and return all settings; what reorder held back leaves now."""
        self.settings = replace(self.settings, **wanted.given())
        self._release()
        return self.settings

    async def run(self) -> None:
        """Send what is in the outbox until cancelled."""
        async with self._client() as client:
            try:
                while True:
                    delivery = await self._outbox.get()
                    await self._first_try(client, delivery)
            finally:
                repetitions = list(self._repetitions)
                self._forget_plans()
                await asyncio.gather(*repetitions, return_exceptions=True)

    async def settle(self, deadline: float, *, push: bool = True) -> bool:
        """Wait until every event has had its last answer; tell whether that happened in time.

        With `push`, what reorder holds back leaves at once.
        """
        if push:
            self._release()
        try:
            async with asyncio.timeout(deadline):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def replay(self, n: int) -> Delivery:
        """Send once more exactly what delivery `n` sent, and return the new one. Raises ApiError 404."""
        original = self.log.get(n)
        if original is None or self.settings.url is None:
            raise ApiError(404, "No such delivery, or no URL to send it to")
        again = self._write_down(original.payload)
        again.replay_of = n
        if original.raw is None:
            again.seal(self.settings.secret, self._clock)
        else:
            again.raw, again.signature = original.raw, original.signature
        async with self._client() as client:
            answer = await self._post(client, again)
        again.state = "delivered" if answer.accepted else "failed"
        return again

    def reset(self) -> None:
        """Go back to the settings of the start and forget everything that was under way."""
        self.settings = self._initial
        while not self._outbox.empty():
            self._outbox.get_nowait()
        self._forget_plans()
        self._open.clear()
        self._settled.set()
        self.log.clear()

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=self._transport, timeout=self.settings.timeout, trust_env=False)

    def _write_down(self, payload: Mapping[str, object]) -> Delivery:
        return self.log.append(lambda n: Delivery(n=n, payload=payload, mode=self.settings.mode))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)

    def _hold_or_send_first(self, delivery: Delivery) -> None:
        if self._held is None:
            self._held = delivery
            # An event without a successor must not wait for ever.
            self._later(self.settings.hold_seconds, lambda: self._release(delivery))
            return
        self._outbox.put_nowait(delivery)
        self._release()

    def _release(self, only: Delivery | None = None) -> None:
        if self._held is not None and only in (None, self._held):
            self._outbox.put_nowait(self._held)
            self._held = None

    async def _first_try(self, client: httpx2.AsyncClient, delivery: Delivery) -> None:
        answer = await self._send(client, delivery)
        if answer.is_worth_another_try and self.settings.retry_delays:
            repetition = asyncio.create_task(self._repeat(delivery))
            self._repetitions.add(repetition)
            repetition.add_done_callback(self._repetitions.discard)
            return
        self._close(delivery, answer)

    async def _repeat(self, delivery: Delivery) -> None:
        async with self._client() as client:
            for pause in self.settings.retry_delays:
                await asyncio.sleep(pause)
                answer = await self._send(client, delivery)
                if not answer.is_worth_another_try:
                    break
        self._close(delivery, answer)

    async def _send(self, client: httpx2.AsyncClient, delivery: Delivery) -> Answer:
        delivery.seal(self.settings.secret, self._clock)
        return await self._post(client, delivery)

    async def _post(self, client: httpx2.AsyncClient, delivery: Delivery) -> Answer:
        headers = {"content-type": "application/json", "x-stackone-signature": delivery.signature or ""}
        at = iso(self._clock())
        try:
            response = await client.post(self.settings.url or "", content=delivery.raw, headers=headers)
            answer = Answer(at=at, status=response.status_code)
        except httpx2.HTTPError as error:
            answer = Answer(at=at, error=type(error).__name__)
        delivery.answers.append(answer)
        return answer

    def _opened(self, delivery: Delivery) -> None:
        self._open.add(delivery.n)
        self._settled.clear()

    def _close(self, delivery: Delivery, answer: Answer) -> None:
        delivery.state = "delivered" if answer.accepted else "failed"
        self._open.discard(delivery.n)
        if not self._open:
            self._settled.set()

    def _forget_plans(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for repetition in self._repetitions:
            repetition.cancel()
        self._timers.clear()
        self._held = None
