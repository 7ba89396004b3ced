"""Wires to StackOne on which something happens: calls are held up, or somebody meddles with them.

Each is laid around the real wire by `open_world(..., stackone_wire=...)`.
"""

import asyncio
from collections.abc import Awaitable, Callable

import httpx2

Send = Callable[[httpx2.Request], Awaitable[httpx2.Response]]

_CONNECT_SECONDS = 0.2


class Gate(httpx2.AsyncBaseTransport):
    """A wire on which a call may be held up before it arrives, or its answer before it is read."""

    def __init__(self, wire: httpx2.AsyncBaseTransport) -> None:
        """Let everything through."""
        self._wire = wire
        self._held: list[asyncio.Event] = []
        self.hold: str | None = None
        self.holding = asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request, when it may."""
        hold, self.hold = self.hold, None
        if hold == "before":
            await self._wait()
        response = await self._wire.handle_async_request(request)
        if hold == "after":
            # All of it has left StackOne: what it says is as old as the wait is long.
            await response.aread()
            await self._wait()
        return response

    def release(self) -> None:
        """Let everything through that is held."""
        self.hold = None
        self.holding.clear()
        for event in self._held:
            event.set()
        self._held.clear()

    def let_go_later(self) -> Callable[[], None]:
        """Set aside what is held now, so that other calls can be held; return what lets it through."""
        held = list(self._held)
        self._held.clear()
        self.holding.clear()

        def let_go() -> None:
            for event in held:
                event.set()

        return let_go

    async def aclose(self) -> None:
        """Close the real wire."""
        await self._wire.aclose()

    async def _wait(self) -> None:
        event = asyncio.Event()
        self._held.append(event)
        self.holding.set()
        await event.wait()


class Meddled(httpx2.AsyncBaseTransport):
    """A wire whose calls somebody may answer, watch or spoil: `meddle` gets the request and the way on."""

    def __init__(self, wire: httpx2.AsyncBaseTransport) -> None:
        """Let everything through."""
        self._wire = wire
        self.meddle: Callable[[httpx2.Request, Send], Awaitable[httpx2.Response]] | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request, or do with it what whoever meddles likes."""
        if self.meddle is None:
            return await self._wire.handle_async_request(request)
        return await self.meddle(request, self._wire.handle_async_request)

    async def aclose(self) -> None:
        """Close the real wire."""
        await self._wire.aclose()


class PlainWire(httpx2.AsyncHTTPTransport):
    """A wire for plain http that reads no certificates, which is slow, and leaves no socket to the garbage collector.

    anyio loses the socket of a connection whose maker is cancelled at the moment when it stands, as happens where a
    world ends while something calls: so what calls is given the time to connect first.
    """

    def __init__(self) -> None:
        """Open no connection yet."""
        super().__init__(verify=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        calling = asyncio.create_task(super().handle_async_request(request))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            await asyncio.wait([calling], timeout=_CONNECT_SECONDS)
            calling.cancel()
            [answer] = await asyncio.gather(calling, return_exceptions=True)
            if isinstance(answer, httpx2.Response):
                await answer.aclose()
            raise
