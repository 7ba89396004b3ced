"""Several apps on loopback sockets in this process, started and stopped together and without polling."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from fastapi import FastAPI


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on"))
        self.up = asyncio.Event()
        self.stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        await self.stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving_all(*apps: tuple[FastAPI, socket.socket]) -> AsyncIterator[None]:
    """Serve each app on its socket while the block runs."""
    servers = [(_Server(app), bound) for app, bound in apps]
    running = [asyncio.create_task(server.serve(sockets=[bound])) for server, bound in servers]
    try:
        for server, task in zip((server for server, _ in servers), running, strict=True):
            up = asyncio.create_task(server.up.wait())
            await asyncio.wait([up, task], return_when=asyncio.FIRST_COMPLETED)
            assert not task.done(), "a server stopped before it was up"
        yield
    finally:
        for server, _ in servers:
            server.stop.set()
        await asyncio.gather(*running)
