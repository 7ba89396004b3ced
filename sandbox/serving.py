"""Serving an app on a loopback socket that is bound before anybody needs to know its port."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import uvicorn
from fastapi import FastAPI

LOOPBACK = "127.0.0.1"


def bind(port: int) -> socket.socket:
    """Return a socket bound to a loopback port, any free one for 0. Raises OSError or OverflowError."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((LOOPBACK, port))
        # Two binds that both allow reuse succeed side by side; the second listen does not.
        bound.listen()
    except (OSError, OverflowError):
        bound.close()
        raise
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the base URL of whatever will listen on `bound`."""
    return f"http://{LOOPBACK}:{bound.getsockname()[1]}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Several servers share this process: whoever started them decides when they stop.
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI, bound: socket.socket, *, lifespan: Literal["on", "off"] = "on") -> AsyncIterator[str]:
    """Serve `app` on `bound` while the block runs; the value is its base URL."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", lifespan=lifespan, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    url = url_of(bound)
    running = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        up = asyncio.create_task(server.up.wait())
        await asyncio.wait({running, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        yield url
    finally:
        server.should_exit = True
        await running
