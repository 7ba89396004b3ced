"""broker serve, broker check-config: with every setting."""

import platform
from enum import Enum
from typing import Annotated

import structlog
import typer

import app as package
from app.cli.opener import configured_secrets, with_runtime
from app.cli.printer import print_line
from app.http.server import serve as serve_app
from app.logs import configure_logs
from app.main import create_app
from app.runtime import Runtime
from app.settings import load_settings

logger = structlog.get_logger(__name__)


class LogFormat(Enum):
    """How log lines are written."""

    JSON = "json"
    CONSOLE = "console"


def serve(
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Lines for machines or for people; in place of BROKER_LOGS__FORMAT.")
    ] = None,
) -> None:
    """Serve the broker's HTTP API until told to stop."""
    settings = load_settings()
    wanted = log_format.value if log_format is not None else settings.logs.format
    console = wanted == LogFormat.CONSOLE.value
    configure_logs(settings.logs.level, configured_secrets(settings), console=console)
    logger.info("broker_starts", version=package.__version__, python=platform.python_version())
    web = create_app(settings)
    serve_app(web, settings, web.state.metrics.registry)


def check_config() -> None:
    """Check every setting, list all mistakes at once, and start nothing."""

    async def environment(runtime: Runtime) -> str:
        return runtime.settings.environment.value

    # Opening a runtime reads the policy and issuers' secrets and key files, and connects to nothing.
    print_line(f"settings are fine ({with_runtime(environment)})")
