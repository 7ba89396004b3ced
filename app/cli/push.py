"""broker push ...: how destinations stand, and telling them again what they missed."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from app.cli.opener import with_runtime, with_store
from app.cli.printer import AsJson, fail, print_json, print_note, print_table
from app.errors import NotFound
from app.push.deliver import list_deliveries, replay_after, replay_dead, replay_one, send_test
from app.push.outbox import DeliveryState, Undelivered, backlogs
from app.push.schemas import DeliveryOut
from app.runtime import Runtime

cli = typer.Typer(no_args_is_help=True, help="Push: signed webhooks to your own services.")


@cli.command("status")
def status(*, as_json: AsJson = False) -> None:
    """Show what waits and what is dead, per destination."""
    found = with_store(backlogs)
    if as_json:
        print_json([{"destination": one.destination, "pending": one.pending, "dead": one.dead} for one in found])
    else:
        print_table(("destination", "pending", "dead"), [(one.destination, one.pending, one.dead) for one in found])


Name = Annotated[str, typer.Argument(help="Name of the destination.")]
_UNKNOWN = "no such destination, or no such change; see `broker push status`"
_MOST_SHOWN = 200


@cli.command("dead")
def dead(
    destination: Name,
    after: Annotated[int, typer.Option(min=0, help="Only behind this position; for the next page.")] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """List deliveries that were given up, with the reason, 200 at a time."""

    async def found(runtime: Runtime) -> tuple[Sequence[Undelivered], bool]:
        return await list_deliveries(runtime, destination, state=DeliveryState.DEAD, after=after, limit=_MOST_SHOWN)

    try:
        deliveries, has_more = with_runtime(found)
    except NotFound:
        fail(_UNKNOWN)
    if as_json:
        print_json([DeliveryOut.of(one).model_dump(mode="json") for one in deliveries])
    else:
        print_table(
            ("position", "account", "kind", "attempts", "failure"),
            [(one.position, one.account_id, one.kind, one.attempts, one.failure) for one in deliveries],
        )
    if has_more:
        print_note(f"there are more: --after {deliveries[-1].position}")


@cli.command("test")
def test(destination: Name) -> None:
    """Send a destination a test message, now and once."""
    try:
        failure = with_runtime(partial(send_test, name=destination))
    except NotFound:
        fail(_UNKNOWN)
    if failure is not None:
        fail(f"not delivered: {failure}")
    print_note("delivered")


@cli.command("replay")
def replay(
    destination: Name,
    after: Annotated[
        int | None, typer.Option(min=0, help="Deliver everything after this position of the feed once more.")
    ] = None,
    position: Annotated[int | None, typer.Option(min=1, help="Deliver the change at this position once more.")] = None,
) -> None:
    """Deliver a destination's dead deliveries again, or one change, or everything after a position."""
    if position is not None:
        try:
            with_runtime(partial(replay_one, destination=destination, position=position))
        except NotFound:
            fail(_UNKNOWN)
        print_note(f"the change at position {position} will be delivered again")
    elif after is None:
        try:
            count = with_runtime(partial(replay_dead, destination=destination))
        except NotFound:
            fail(_UNKNOWN)
        print_note(f"{count} dead deliveries are pending again")
    elif with_runtime(partial(replay_after, destination=destination, position=after)):
        print_note(f"everything after position {after} will be delivered again")
    else:
        fail("no such destination, or it is not yet at that position; see `broker push status`")
