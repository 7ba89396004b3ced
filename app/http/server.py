"""Running the web app under uvicorn, with the limits on what a client may send and how slowly."""

import ipaddress
import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, start_http_server

from app.http.protocol import guarded_protocol
from app.settings import HttpSettings, MetricsSettings

_EXIT_NOT_STARTED = 3  # what uvicorn's own command exits with


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
    """uvicorn's server, which tells the app that it is about to stop."""

    def __init__(self, web: FastAPI, settings: HttpSettings) -> None:
        """Serve nothing yet."""
        super().__init__(server_config(web, settings))
        self._web = web

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests finish; those that only wait for news finish at once."""
        self._web.state.runtime.stopping.set()
        await super().shutdown(sockets)


def serve(web: FastAPI, settings: HttpSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish. One process: scale by replicas."""
    server = Server(web, settings)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_EXIT_NOT_STARTED)


def serve_metrics(settings: MetricsSettings, registry: CollectorRegistry) -> None:
    """Serve /metrics on its own listener, in a daemon thread; does nothing where it is turned off."""
    if settings.port is not None:
        start_http_server(settings.port, settings.host, registry)
