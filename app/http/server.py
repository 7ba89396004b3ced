"""Running the web app under uvicorn, with the limits on what a client may send and how slowly."""

import asyncio
import contextlib
import ipaddress
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app

from app.http.protocol import HEALTH_RESERVE, guarded_protocol
from app.settings import HttpSettings, MetricsSettings

logger = structlog.get_logger(__name__)

_EXIT_NOT_STARTED = 3  # what uvicorn's own command exits with
_SCRAPES_AT_ONCE = 32
# Files beside the clients' connections: the database's, StackOne's, logs, and what the interpreter holds open.
_OTHER_FILES = 256
_LOOK_SECONDS = 0.1


def server_config(web: FastAPI, settings: HttpSettings) -> uvicorn.Config:
    """Return how uvicorn serves the app."""
    return uvicorn.Config(
        web,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        # h11 lets through Content-Length beside Transfer-Encoding, bare LF and folded headers; httptools refuses them.
        http=guarded_protocol(settings),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=bool(settings.trusted_proxies),
        # uvicorn takes a network with host bits for a name, which no address ever equals.
        forwarded_allow_ips=[str(ipaddress.ip_network(proxy, strict=False)) for proxy in settings.trusted_proxies],
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


class Server(uvicorn.Server):
    """uvicorn's server, which drains before it stops and ends with status 0 when it is told to."""

    def __init__(self, web: FastAPI, settings: HttpSettings) -> None:
        """Serve nothing yet."""
        super().__init__(server_config(web, settings))
        self._web = web
        self._drain_seconds = settings.drain_seconds
        self._is_drained = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT; uvicorn would end the process by the signal afterwards, as if it had failed."""
        kept = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; somebody at a keyboard does not wait for load balancers to notice."""
        self._is_drained = self._is_drained or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that it stops while everybody is still served; then let running requests finish.

        Those that only wait for news are answered at once.
        """
        self._web.state.runtime.stopping.set()
        left = self._drain_seconds
        while left > 0 and not self._is_drained and not self.force_exit:
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            left -= _LOOK_SECONDS
        await super().shutdown(sockets)


class _MetricsServer(uvicorn.Server):
    """Serves /metrics in the same loop; signals are the other server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def serve(web: FastAPI, settings: HttpSettings, metrics: MetricsSettings, registry: CollectorRegistry) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish. One process: scale by replicas."""
    _check_file_limit(settings)
    server = Server(web, settings)
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner,
    ):
        runner.run(_serve_both(server, metrics, registry))
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


def _check_file_limit(settings: HttpSettings) -> None:
    """Compare the connections that may be open with the files the process may have, and ask for more where it may."""
    needed = settings.max_connections + HEALTH_RESERVE + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed:
        logger.error(
            "file_limit_too_low",
            limit=wanted,
            needed=needed,
            remedy="raise the limit of open files (ulimit -n, LimitNOFILE=) or lower BROKER_HTTP__MAX_CONNECTIONS",
        )
