"""broker health: what the image's health check runs."""

from http import HTTPStatus
from http.client import HTTPConnection
from typing import Annotated

import typer

from app.cli.printer import fail, print_line
from app.settings import load_settings

_SECONDS = 2.5


def health(
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether it can serve, not only whether it runs.")] = False,
) -> None:
    """Ask the broker on this machine, at its own port, whether it runs. For the image's health check."""
    settings = load_settings().http
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  asked, not bound
    connection = HTTPConnection(host, settings.port, timeout=_SECONDS)
    try:
        connection.request("GET", "/readyz" if ready else "/livez")
        status = connection.getresponse().status
    except OSError as error:
        fail(f"nobody answers at {host}:{settings.port} ({type(error).__name__})")
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        fail(f"it answers {status}")
    print_line("ok")
