"""Ports: bound before anything starts, so that a taken one is reported by the name of its option."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace

from sandbox.launch.options import DemoError, DemoOptions
from sandbox.serving import LOOPBACK, bind, reserved


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Sockets of the externals that live in this process, and port numbers that are kept for the broker's."""

    stackone: socket.socket
    identity: socket.socket
    provider: socket.socket
    broker: int
    metrics: int
    held: ExitStack

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
    """Bind and choose every port. Raises DemoError naming the option of a taken one."""
    with ExitStack() as held:
        ports = Ports(
            stackone=_bound(held, "--sandbox-port", options.sandbox_port),
            identity=_bound(held, "--page-port", options.page_port),
            provider=_bound(held, "--provider-port", options.provider_port),
            broker=_kept(held, "--port", options.port),
            metrics=_kept(held, "--metrics-port", options.metrics_port),
            held=held,
        )
        if ports.broker == ports.metrics:
            raise _taken("--metrics-port", ports.metrics)
        return replace(ports, held=held.pop_all())


def _bound(held: ExitStack, option: str, port: int) -> socket.socket:
    try:
        return held.enter_context(bind(port))
    except (OSError, OverflowError) as error:
        raise _taken(option, port) from error


def _kept(held: ExitStack, option: str, port: int) -> int:
    # The broker binds its own ports, some seconds later: after its migrations.
    try:
        return held.enter_context(reserved(port))
    except (OSError, OverflowError) as error:
        raise _taken(option, port) from error


def _taken(option: str, port: int) -> DemoError:
    return DemoError(f"Port {port} is not free. Stop what uses it, or choose another with {option} (0 takes any).")
