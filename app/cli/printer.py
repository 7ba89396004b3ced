"""What commands print: results to standard output, everything about them to standard error.

Values are printed as they are. Owners' names and labels are other people's text: markup in them means nothing, and a
terminal's control characters are replaced.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer
from pydantic_core import to_json

# Ids may begin with "-": what is no option of the command is its argument.
IDS = {"ignore_unknown_options": True}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
"""The option that every command with a result has."""


def print_line(line: str) -> None:
    """Print a line of the result."""
    typer.echo(_printable(line))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | int | datetime | None]]) -> None:
    """Print a table; nothing is cut to the width of a terminal, so that its lines can be searched."""
    cells = [[_printable(_cell(value)) for value in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: object) -> None:
    """Print one line of JSON; models, dataclasses, times and enums are spelled as the API spells them."""
    sys.stdout.write(to_json(value).decode() + "\n")


def print_note(line: str) -> None:
    """Say something about the result that is no part of it."""
    typer.echo(_printable(line), err=True)


def print_problem(line: str) -> None:
    """Say what went wrong, or what needs attention."""
    typer.secho(_printable(line), err=True, fg="red", bold=True)


def fail(line: str, *, status: int = 1) -> NoReturn:
    """Say what went wrong and end the command with an exit status."""
    print_problem(line)
    raise typer.Exit(status)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return value.isoformat(timespec="minutes") if isinstance(value, datetime) else str(value)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
