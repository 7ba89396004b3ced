"""Several apps on loopback sockets in this process, started and stopped together and without polling."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from fastapi import FastAPI

_KEPT_SECONDS = 75


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                ws="none",
                lifespan="on",
                # A test that waited for five seconds met uvicorn's own limit on the connection that it used again.
                timeout_keep_alive=_KEPT_SECONDS,
            )
        )
        self.up = asyncio.Event()
        self.stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own sleeps for 100 ms, whatever there is to wait for: a minute and more over a whole run.
        loop = asyncio.get_running_loop()
        for listening in [listening for server in self.servers for listening in server.sockets]:
            loop.remove_reader(listening.fileno())
        # What was accepted a moment ago gets its transport first: asyncio loses it where its server is closed already
        # (CPython 109564, in 3.11).
        await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        # A connection that was accepted a moment ago is the server's two turns of the loop later, and one that is
        # closed is told so at the next.
        for _ in range(4):
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await asyncio.sleep(0)
        await self._wait_tasks_to_complete()
        await self.lifespan.shutdown()

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
