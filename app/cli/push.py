"""broker push ...: how destinations stand, and telling them again what they missed."""

import json
import sys
from typing import Annotated

import typer
from rich.table import Table

from app.cli.opener import err, out, with_runtime
from app.push import outbox
from app.push.outbox import Backlog
from app.runtime import Runtime

push_cli = typer.Typer(no_args_is_help=True, help="Push: signed webhooks to your own services.")

_EXIT_UNKNOWN = 1


@push_cli.command("status")
def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False) -> None:
    """Show what waits and what is dead, per destination."""

    async def read(runtime: Runtime) -> list[Backlog]:
        async with runtime.database.reading() as connection:
            return list(await outbox.backlogs(connection))

    found = with_runtime(read)
    if as_json:
        rows = [{"destination": one.destination, "pending": one.pending, "dead": one.dead} for one in found]
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    table = Table("destination", "pending", "dead")
    for one in found:
        table.add_row(one.destination, str(one.pending), str(one.dead))
    out.print(table)


@push_cli.command("replay")
def replay(
    destination: Annotated[str, typer.Argument(help="Name of the destination.")],
    after: Annotated[
        int | None, typer.Option(min=0, help="Tell it everything behind this position of the feed once more.")
    ] = None,
) -> None:
    """Deliver a destination's dead letters again, or everything behind a position."""

    async def work(runtime: Runtime) -> str | None:
        async with runtime.database.transaction() as connection:
            if after is None:
                count = await outbox.replay_dead(connection, destination, now=runtime.clock.now())
                return f"{count} dead deliveries are pending again"
            known = await outbox.replay_from(connection, destination, after)
        return f"everything behind position {after} will be delivered again" if known else None

    said = with_runtime(work)
    if said is None:
        err.print("no such destination, or it is not yet at that position; see `broker push status`", style="bold red")
        sys.exit(_EXIT_UNKNOWN)
    err.print(said)
