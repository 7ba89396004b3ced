"""broker push ...: how destinations stand, and telling them again what they missed."""

from functools import partial
from typing import Annotated

import typer

from app.cli.opener import with_runtime, with_store
from app.cli.printer import AsJson, fail, print_json, print_note, print_table
from app.push.deliver import replay_after, replay_dead
from app.push.outbox import backlogs

push_cli = typer.Typer(no_args_is_help=True, help="Push: signed webhooks to your own services.")


@push_cli.command("status")
def status(*, as_json: AsJson = False) -> None:
    """Show what waits and what is dead, per destination."""
    found = with_store(backlogs)
    if as_json:
        print_json([{"destination": one.destination, "pending": one.pending, "dead": one.dead} for one in found])
    else:
        print_table(("destination", "pending", "dead"), [(one.destination, one.pending, one.dead) for one in found])


@push_cli.command("replay")
def replay(
    destination: Annotated[str, typer.Argument(help="Name of the destination.")],
    after: Annotated[
        int | None, typer.Option(min=0, help="Deliver everything after this position of the feed once more.")
    ] = None,
) -> None:
    """Deliver a destination's dead deliveries again, or everything after a position."""
    if after is None:
        count = with_runtime(partial(replay_dead, destination=destination))
        print_note(f"{count} dead deliveries are pending again")
    elif with_runtime(partial(replay_after, destination=destination, position=after)):
        print_note(f"everything after position {after} will be delivered again")
    else:
        fail("no such destination, or it is not yet at that position; see `broker push status`")
