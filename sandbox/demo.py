"""`broker-demo`: the real broker with sandbox externals, on one machine and without an account at StackOne."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.launch.broker import Broker
from sandbox.launch.environment import broker_environment, database_url
from sandbox.launch.externals import externals
from sandbox.launch.options import DemoError, DemoOptions
from sandbox.launch.ports import (
    BROKER_PORT,
    METRICS_PORT,
    PAGE_PORT,
    PROVIDER_PORT,
    STACKONE_PORT,
    claim_ports,
)
from sandbox.launch.secrets_file import demo_secrets
from sandbox.launch.state_folder import claimed_folder
from sandbox.launch.summary import Summary


def main() -> None:
    """Run the command line."""
    command_line = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command_line.command()(demo)
    command_line()


def _port(whose: str, default: int) -> Any:
    # No default of the option itself: a port that was chosen is taken or refused, a default one is replaced.
    return typer.Option(help=f"Port of {whose}.", show_default=str(default))


def demo(
    port: Annotated[int | None, _port("the broker; 0 takes any free one", BROKER_PORT)] = None,
    sandbox_port: Annotated[int | None, _port("the StackOne emulator", STACKONE_PORT)] = None,
    page_port: Annotated[int | None, _port("the page and the identity provider", PAGE_PORT)] = None,
    metrics_port: Annotated[int | None, _port("the broker's metrics", METRICS_PORT)] = None,
    provider_port: Annotated[int | None, _port("the OAuth consent page", PROVIDER_PORT)] = None,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Take free ports for all of them.")] = False,  # noqa: FBT002
    directory: Annotated[Path, typer.Option("--dir", help="State folder.")] = Path(".demo"),
    database: Annotated[
        str | None, typer.Option("--database-url", help="Database; default: a SQLite file in the state folder.")
    ] = None,
    broker_env: Annotated[
        list[str] | None, typer.Option(help="A further setting, BROKER_NAME=VALUE; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON once ready.")] = False,  # noqa: FBT002
) -> None:
    """Run the broker with sandbox externals until Ctrl-C."""
    options = DemoOptions(
        port=port,
        sandbox_port=sandbox_port,
        page_port=page_port,
        metrics_port=metrics_port,
        provider_port=provider_port,
        free_ports=free_ports,
        directory=directory.resolve(),
        database_url=database,
        broker_env=tuple(broker_env or ()),
        as_json=as_json,
    )
    # Whatever the demo and its broker write is for this user only: tokens, keys, a database.
    os.umask(0o077)
    try:
        with claimed_folder(options.directory):
            asyncio.run(_until_stopped(options))
    except DemoError as error:
        sys.stderr.write(f"broker-demo: {error}\n")
        raise typer.Exit(1) from error


async def _until_stopped(options: DemoOptions) -> None:
    running = asyncio.create_task(_run(options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, running.cancel)
    # A demo that is stopped has not failed.
    (outcome,) = await asyncio.gather(running, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


async def _run(options: DemoOptions) -> None:
    secrets = demo_secrets(options.directory)
    log = options.directory / "broker.log"
    log.write_bytes(b"")
    ports = claim_ports(options)
    for note in ports.notes:
        sys.stderr.write(f"broker-demo: {note}\n")
    try:
        broker = Broker(environment=broker_environment(options, ports, secrets), log=log)
        async with externals(ports, secrets, options.directory / "stackone.json") as up:
            await broker.migrate()
            service_key = up.identity.service_key = await broker.create_service_key()
            async with broker.serving(ports.broker_url) as child:
                summary = Summary(
                    ports=ports,
                    secrets=secrets,
                    identity=up.identity,
                    has_page=up.has_page,
                    service_key=service_key,
                    database_url=database_url(options),
                    log=str(log),
                )
                sys.stdout.write((summary.to_json() if options.as_json else summary.to_text()) + "\n")
                sys.stdout.flush()
                raise broker.died(await child.wait())
    finally:
        ports.close()
