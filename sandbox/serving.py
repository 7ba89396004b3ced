"""Serving an app on a loopback socket that is bound before anybody needs to know its port."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import uvicorn
from fastapi import FastAPI

LOOPBACK = "127.0.0.1"
_END_SECONDS = 5.0
_IS_LINUX = sys.platform == "linux"


def bind(port: int) -> socket.socket:
    """Return a socket bound to a loopback port, any free one for 0. Raises OSError or OverflowError."""
    # With the protocol named, asyncio turns Nagle off on each connection; without, every answer waits 40 ms for an ACK.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((LOOPBACK, port))
        # Two binds that both allow reuse succeed side by side; the second listen does not.
        bound.listen()
    except (OSError, OverflowError):
        bound.close()
        raise
    return bound


@contextlib.contextmanager
def reserved(port: int) -> Iterator[int]:
    """Keep a loopback port, any free one for 0, for a process that will listen on it; the value is its number.

    Raises OSError or OverflowError if somebody listens there already.
    """
    with contextlib.ExitStack() as held:
        bound = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((LOOPBACK, port))
        number: int = bound.getsockname()[1]
        if _IS_LINUX:
            # A port that is only bound is given to nobody who asks for any, and yet another may listen on it.
            bind(number).close()
        else:
            bound.listen()
            held.close()
        yield number


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
        ended, _ = await asyncio.wait({running}, timeout=_END_SECONDS)
        if not ended:
            # A request that hangs on purpose must not keep whoever started the server from ending.
            running.cancel()
            await asyncio.wait({running}, timeout=_END_SECONDS)
        else:
            await running
