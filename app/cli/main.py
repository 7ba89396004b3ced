"""broker: the command line. Every command reads its settings from BROKER_* and says what to do when they are wrong."""

import gc
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import app as package
from app.cli.printer import print_line, print_note, print_problem
from app.errors import AppError, SettingsError

# What each command is: a function, or a group of commands. Only the one that is called is imported: the image's health
# check, every 15 seconds, must not pay for the whole server.
COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "serve": "app.cli.serve:serve",
        "migrate": "app.cli.migrate:migrate",
        "check-config": "app.cli.serve:check_config",
        "doctor": "app.cli.doctor:doctor",
        "health": "app.cli.health:health",
        "sync": "app.cli.sync:sync",
        "move": "app.cli.move:move_database",
        "accounts": "app.cli.accounts:cli",
        "audit": "app.cli.audit:cli",
        "owners": "app.cli.owners:cli",
        "policy": "app.cli.policy:cli",
        "push": "app.cli.push:cli",
        "service-keys": "app.cli.service_keys:cli",
        "tokens": "app.cli.tokens:cli",
    }
)
_EXIT_SETTINGS = 78  # EX_CONFIG of sysexits.h
_EXIT_FAILURE = 1


class _Commands(TyperGroup):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        # What is imported stays: to look for garbage in it is an eighth of a start.
        gc.disable()
        try:
            command = getattr(import_module(module), name)
        finally:
            gc.enable()
        # A group stays one, also with one command in it, which typer would otherwise put in its place.
        if isinstance(command, typer.Typer):
            return typer.main.get_group(command)
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(command)
        return typer.main.get_command(alone)


cli = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        print_line(package.__version__)
        raise typer.Exit


@cli.callback()
def broker(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Run the Connect Broker; every command reads its settings from BROKER_*."""


def main() -> None:
    """Run the command line."""
    # TLS libraries write the secrets of every connection into the file that it names, and fail where they cannot.
    os.environ.pop("SSLKEYLOGFILE", None)
    try:
        cli()
    except AppError as error:
        said = error.detail or error.code
        print_problem(f"{said}: {error.remedy}" if error.remedy else f"{error.title}: {said}")
        sys.exit(_EXIT_FAILURE)
    except SettingsError as error:
        print_problem(f"{len(error.mistakes)} setting(s) must be fixed (see docs/configuration.md):")
        for mistake in error.mistakes:
            print_note(f"  - {mistake}")
        sys.exit(_EXIT_SETTINGS)
