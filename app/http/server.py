"""Running the web app under uvicorn, with the limits on what a client may send and how slowly."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app

from app.http.capacity import HEALTH_RESERVE
from app.http.protocol import guarded_protocol
from app.settings import HttpSettings, MetricsSettings, Settings

logger = structlog.get_logger(__name__)

_EXIT_NOT_STARTED = 3  # what uvicorn's own command exits with
_SCRAPES_AT_ONCE = 32
# Files beside the clients' connections and StackOne's: the database's, logs, and what the interpreter holds open.
_OTHER_FILES = 256
_LOOK_SECONDS = 0.1
_TICK_SECONDS = 1.0
# A mint allocates some thousands of objects, nearly all of which are gone with its answer: 700, the default, looks at
# them several times before they are.
_YOUNG_OBJECTS = 10_000


def server_config(web: FastAPI, settings: HttpSettings) -> uvicorn.Config:
    """Return how uvicorn serves the app."""
    return uvicorn.Config(
        web,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        # Else WEB_CONCURRENCY is read, which platforms set for all programs, to no number too.
        workers=1,
        # h11 lets through Content-Length beside Transfer-Encoding, bare LF and folded headers; httptools refuses them.
        http=guarded_protocol(settings),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.proxies.networks],
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


class _QuietServer(uvicorn.Server):
    """uvicorn's server, which wakes up to be told that it ends and to renew the date, and not ten times a second.

    Nine of ten of those looks found nothing, and were most of what an idle broker did.
    """

    _ends: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop
    _is_ending = False

    @property
    def should_exit(self) -> bool:
        """Whether it ends."""
        return self._is_ending

    @should_exit.setter
    def should_exit(self, is_ending: bool) -> None:
        self._is_ending = is_ending
        if is_ending and self._ends is not None:
            # A signal's handler may be the one who says so.
            self._loop.call_soon_threadsafe(self._ends.set)

    async def main_loop(self) -> None:
        """Do what has to be done each second until it ends."""
        self._loop = asyncio.get_running_loop()
        self._ends = asyncio.Event()
        try:
            # Whatever uvicorn does in some of its ticks only, it does in those of number 0.
            while not await self.on_tick(0):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_SECONDS):
                        await self._ends.wait()
        finally:
            self._ends = None


class Server(_QuietServer):
    """uvicorn's server, which drains before it stops and ends with status 0 when it is told to."""

    def __init__(self, web: FastAPI, settings: HttpSettings) -> None:
        """Serve nothing yet."""
        super().__init__(server_config(web, settings))
        self._web = web
        self._drain_seconds = settings.drain_seconds
        self._is_drained = False
        self.config.http.capacity.counter = web.state.metrics.shed  # type: ignore[union-attr]  # the class made above
        web.state.metrics.connections.set_function(lambda: float(len(self.server_state.connections)))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT; uvicorn would end the process by the signal afterwards, as if it had failed."""
        kept = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then spare the garbage collector what stays for good: modules, routes, models, settings."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; somebody at a keyboard does not wait for load balancers to notice."""
        self._is_drained = self._is_drained or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that it stops while everybody is still served; then let running requests finish.

        Those that only wait for news are answered at once.
        """
        self._web.state.runtime.stopping.set()
        self.config.http_protocol_class.is_draining = True  # type: ignore[attr-defined]
        left = self._drain_seconds
        while left > 0 and not self._is_drained and not self.force_exit:
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            left -= _LOOK_SECONDS
        await self._stop_listening()
        await super().shutdown(sockets)

    async def _stop_listening(self) -> None:
        """Take what has connected already, which the system would reset, and serve what it has sent already."""
        loop = asyncio.get_running_loop()
        listening = [
            socket.socket(fileno=os.dup(bound.fileno())) for server in self.servers for bound in server.sockets
        ]
        for server in self.servers:
            server.close()
        # The loop's own sockets are closed at its next turn; until ours are, new connections are kept, not refused.
        await asyncio.sleep(0)
        waiting: list[socket.socket] = []
        for each in listening:
            with each, contextlib.suppress(OSError):
                each.setblocking(False)
                for _ in range(self.config.backlog):
                    waiting.append(each.accept()[0])  # noqa: PERF401  the last one raises
        for accepted in waiting:
            accepted.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, accepted)
        await asyncio.sleep(_LOOK_SECONDS)

    def _protocol(self) -> asyncio.Protocol:
        made: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = made(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


class _MetricsServer(_QuietServer):
    """Serves /metrics in the same loop; signals are the other server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def serve(web: FastAPI, settings: Settings, registry: CollectorRegistry) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish. One process: scale by replicas."""
    server = Server(web, _as_files_allow(settings))
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner,
    ):
        runner.run(_serve_both(server, settings.metrics, registry))
    if not server.started:
        sys.exit(_EXIT_NOT_STARTED)


async def _serve_both(server: Server, settings: MetricsSettings, registry: CollectorRegistry) -> None:
    if settings.port is None:
        await server.serve()
        return
    scraped = _MetricsServer(_metrics_config(settings, registry))
    serving = asyncio.create_task(scraped.serve(sockets=[_bound(settings)]))
    try:
        await server.serve()
    finally:
        scraped.should_exit = True
        await serving


def _metrics_config(settings: MetricsSettings, registry: CollectorRegistry) -> uvicorn.Config:
    """Return how /metrics is served: with deadlines, and by no thread of its own."""
    limits = HttpSettings(host=settings.host, max_connections=_SCRAPES_AT_ONCE)
    return uvicorn.Config(
        make_asgi_app(registry),
        loop="none",
        workers=1,
        http=guarded_protocol(limits),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


def _bound(settings: MetricsSettings) -> socket.socket:
    """Bind the metrics listener; a port that is taken ends the start with one sentence."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port or 0))
    except OSError as error:
        listener.close()
        log = logger.error  # a sentence for the operator, and no traceback
        log("metrics_not_served", host=settings.host, port=settings.port, reason=error.strerror)
        sys.exit(_EXIT_NOT_STARTED)
    return listener


def _as_files_allow(settings: Settings) -> HttpSettings:
    """Ask for as many files as connections may be open; where they are refused, clients get half of what there is.

    Without a file nothing works, health probes included: no client may use up the last.
    """
    needed = settings.http.max_connections + HEALTH_RESERVE + settings.stackone.max_connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return settings.http
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted == needed:
        return settings.http
    most = min(settings.http.max_connections, max(1, wanted // 2 - HEALTH_RESERVE))
    logger.error(
        "file_limit_too_low",
        limit=wanted,
        needed=needed,
        max_connections=most,
        remedy="raise the limit of open files (ulimit -n, LimitNOFILE=) or lower BROKER_HTTP__MAX_CONNECTIONS"
        " and BROKER_STACKONE__MAX_CONNECTIONS",
    )
    return settings.http.model_copy(update={"max_connections": most})
