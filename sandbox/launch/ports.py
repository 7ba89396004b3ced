"""Ports: bound before anything starts, so that nothing runs where one of them is taken."""

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sandbox.launch.options import DemoError, DemoOptions
from sandbox.serving import LOOPBACK, bind, reserved

Port = TypeVar("Port")

BROKER_PORT = 8000
STACKONE_PORT = 8100
PAGE_PORT = 8200
PROVIDER_PORT = 8300
METRICS_PORT = 9464


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Sockets of the externals that live in this process, and port numbers that are kept for the broker's."""

    stackone: socket.socket
    identity: socket.socket
    provider: socket.socket
    broker: int
    metrics: int
    held: ExitStack
    notes: list[str]

    @property
    def broker_url(self) -> str:
        """Return where the broker will listen."""
        return f"http://{LOOPBACK}:{self.broker}"

    @property
    def metrics_url(self) -> str:
        """Return where the broker's metrics will be."""
        return f"http://{LOOPBACK}:{self.metrics}/metrics"

    def close(self) -> None:
        """Give back what no server has taken over."""
        self.held.close()


def claim_ports(options: DemoOptions) -> Ports:
    """Bind and choose every port. Raises DemoError for a taken port that was given by number."""
    with ExitStack() as held:
        claim = _Claim(free=options.free_ports, held=held)
        ports = Ports(
            stackone=claim.take("--sandbox-port", options.sandbox_port, STACKONE_PORT, bind),
            identity=claim.take("--page-port", options.page_port, PAGE_PORT, bind),
            provider=claim.take("--provider-port", options.provider_port, PROVIDER_PORT, bind),
            # The broker binds its own ports, some seconds later: after its migrations.
            broker=claim.take("--port", options.port, BROKER_PORT, reserved),
            metrics=claim.take("--metrics-port", options.metrics_port, METRICS_PORT, reserved),
            notes=claim.notes,
            held=held,
        )
        if ports.broker == ports.metrics:
            raise _taken("--metrics-port", ports.metrics)
        return replace(ports, held=held.pop_all())


@dataclass(kw_only=True)
class _Claim:
    free: bool
    held: ExitStack
    notes: list[str] = field(default_factory=list)

    def take(
        self, option: str, given: int | None, default: int, hold: Callable[[int], AbstractContextManager[Port]]
    ) -> Port:
        """Hold the port that was given, or the default one, or a free one in the place of a taken default."""
        if given is None and self.free:
            given = 0
        try:
            return self.held.enter_context(hold(default if given is None else given))
        except (OSError, OverflowError) as error:
            if given is not None:
                raise _taken(option, given) from error
        port = self.held.enter_context(hold(0))
        number = port.getsockname()[1] if isinstance(port, socket.socket) else port
        self.notes.append(f"Port {default} ({option}) is taken: using {number} instead.")
        return port


def _taken(option: str, port: int) -> DemoError:
    return DemoError(f"Port {port} is not free. Stop what uses it, or choose another with {option} (0 takes any).")
