"""broker owners ...: pin a name, erase everything of an owner at StackOne and here."""

import getpass
from functools import partial
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from app.cli.opener import with_database, with_runtime
from app.cli.printer import AsJson, fail, print_json, print_line
from app.clock import SystemClock
from app.db.database import Database
from app.inputs import OwnerId
from app.owners.erasure import erase_owner
from app.owners.names import Pin, pin
from app.owners.schemas import ErasureReceipt, OwnerName, PinnedName

_EXIT_PENDING = 3

owners_cli = typer.Typer(no_args_is_help=True, help="Owners: the names that StackOne knows them by, and their erasure.")


@owners_cli.command("erase")
def erase(
    owner_id: Annotated[str, typer.Argument(help="Owner id, as in the identity provider's claim.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an owner's accounts at StackOne and everything personal here; print a receipt.

    Exit status: 0 complete, 3 under way (StackOne is away; a running broker carries it on).
    """
    if not yes:
        typer.confirm("This deletes all accounts of the owner at StackOne and cannot be undone. Go on?", abort=True)

    receipt = ErasureReceipt.of(with_runtime(partial(erase_owner, owner_id=owner_id, actor="cli")))
    if as_json:
        print_json(receipt)
    else:
        print_line(
            f"receipt {receipt.id}: {receipt.state}; {receipt.accounts} account(s), {receipt.sessions} session(s),"
            f" {receipt.events} event(s) cleared"
        )
    if receipt.completed_at is None:
        fail(
            "StackOne still has accounts of this owner; a running broker goes on as soon as StackOne answers",
            status=_EXIT_PENDING,
        )


@owners_cli.command("pin")
def pin_name(
    owner_id: Annotated[str, typer.Argument(help="Owner id.")],
    name: Annotated[str, typer.Option(help="The name that StackOne is to know the owner by.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pin another name for an owner, and say what that means for accounts that are linked already."""
    try:
        owner_id = TypeAdapter(OwnerId).validate_python(owner_id)
        wanted = OwnerName(name=name, dry_run=dry_run)
    except ValidationError as error:
        raise typer.BadParameter(error.errors(include_input=False)[0]["msg"]) from error

    async def pin_in(database: Database) -> Pin:
        actor = f"operator:{getpass.getuser()}"
        async with database.transaction() as connection:
            return await pin(connection, owner_id, wanted.name, actor=actor, dry_run=dry_run, now=SystemClock().now())

    pinned = PinnedName.of(with_database(pin_in))
    if as_json:
        print_json(pinned)
        return
    verb = "would be" if dry_run else "is"
    print_line(f"{owner_id} {verb} pinned to {pinned.owner_name!r} (before: {pinned.previous_name!r})")
    for effect in pinned.effects:
        print_line(f"  - {effect}")
    for account in pinned.accounts_with_other_names:
        print_line(f"    {account.account_id} ({account.provider}) keeps {account.owner_name!r}")
