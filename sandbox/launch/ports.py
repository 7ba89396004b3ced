"""Ports: bound before anything starts, so that a taken one is reported by the name of its option."""

import socket
from dataclasses import dataclass

from sandbox.launch.options import DemoError, DemoOptions
from sandbox.serving import LOOPBACK, bind, url_of


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Sockets of the neighbours that live in this process, and free port numbers for the broker."""

    stackone: socket.socket
    identity: socket.socket
    provider: socket.socket
    broker: int
    metrics: int

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
        for bound in (self.stackone, self.identity, self.provider):
            bound.close()


def claim_ports(options: DemoOptions) -> Ports:
    """Bind and choose every port. Raises DemoError naming the option of a taken one."""
    bound: dict[str, socket.socket] = {}
    wanted = {
        "--sandbox-port": options.sandbox_port,
        "--page-port": options.page_port,
        "--provider-port": options.provider_port,
        "--port": options.port,
        "--metrics-port": options.metrics_port,
    }
    try:
        for option, port in wanted.items():
            bound[option] = _claim(option, port)
    except DemoError:
        for taken in bound.values():
            taken.close()
        raise
    return Ports(
        stackone=bound["--sandbox-port"],
        identity=bound["--page-port"],
        provider=bound["--provider-port"],
        broker=_release(bound["--port"]),
        metrics=_release(bound["--metrics-port"]),
    )


def _claim(option: str, port: int) -> socket.socket:
    try:
        return bind(port)
    except (OSError, OverflowError) as error:
        raise DemoError(
            f"Port {port} is not free. Stop what uses it, or choose another with {option} (0 takes any)."
        ) from error


def _release(bound: socket.socket) -> int:
    # The broker binds its own ports, a moment later; holding all sockets until here kept them apart from each other.
    port = int(url_of(bound).rpartition(":")[2])
    bound.close()
    return port
