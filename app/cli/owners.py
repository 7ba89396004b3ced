"""broker owners ...: pin a name, erase everything of an owner at StackOne and here."""

import asyncio
import getpass
import json
import sys
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from app.cli.opener import err, out, with_runtime
from app.clock import SystemClock
from app.connect_sessions.owner_names import Pin, pin_owner
from app.db.database import Database
from app.db.engine import open_engine
from app.inputs import OwnerId
from app.logs import configure_logs
from app.owners.erasure import Erasure, erase_owner
from app.owners.schemas import ErasureReceipt, OwnerName, PinnedName
from app.runtime import Runtime
from app.settings import load_database_settings

_EXIT_PENDING = 3

owners_cli = typer.Typer(no_args_is_help=True, help="Owners: the names that StackOne knows them by, and their erasure.")


@owners_cli.command("erase")
def erase(
    owner_id: Annotated[str, typer.Argument(help="Owner id, as in the identity provider's claim.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Delete an owner's accounts at StackOne and everything personal here; print a receipt.

    Exit status: 0 complete, 3 under way (StackOne is away; a running broker carries it on).
    """
    if not yes:
        typer.confirm("This deletes all accounts of the owner at StackOne and cannot be undone. Go on?", abort=True)

    async def work(runtime: Runtime) -> Erasure:
        return await erase_owner(runtime, owner_id, actor="cli")

    erasure = with_runtime(work)
    if as_json:
        sys.stdout.write(json.dumps(ErasureReceipt.of(erasure).model_dump(mode="json")) + "\n")
    else:
        out.print(
            f"receipt {erasure.id}: {erasure.state}; {erasure.accounts} account(s), {erasure.sessions} session(s),"
            f" {erasure.events} event(s) cleared"
        )
    if erasure.state != "complete":
        err.print("StackOne still has something of this owner; a running broker goes on as soon as it can")
        sys.exit(_EXIT_PENDING)


@owners_cli.command("pin")
def pin_name(
    owner_id: Annotated[str, typer.Argument(help="Owner id.")],
    name: Annotated[str, typer.Option(help="The name that StackOne shall know the owner by.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Pin another name for an owner, and say what that means for accounts that are linked already."""
    try:
        owner_id = TypeAdapter(OwnerId).validate_python(owner_id)
        wanted = OwnerName(name=name, dry_run=dry_run)
    except ValidationError as error:
        raise typer.BadParameter(error.errors(include_input=False)[0]["msg"]) from error
    configure_logs("ERROR", [])

    async def pin() -> Pin:
        database = Database(open_engine(load_database_settings()))
        try:
            return await pin_owner(
                owner_id,
                wanted.name,
                actor=f"operator:{getpass.getuser()}",
                dry_run=dry_run,
                database=database,
                clock=SystemClock(),
            )
        finally:
            await database.close()

    pinned = PinnedName.of(asyncio.run(pin()))
    if as_json:
        sys.stdout.write(pinned.model_dump_json() + "\n")
        return
    verb = "would be" if dry_run else "is"
    _print(f"{owner_id} {verb} pinned to {pinned.owner_name!r} (before: {pinned.previous_name!r})")
    for effect in pinned.effects:
        _print(f"  - {effect}")
    for account in pinned.accounts_with_other_names:
        _print(f"    {account.account_id} ({account.provider}) keeps {account.owner_name!r}")


def _print(line: str) -> None:
    out.print(line, markup=False, highlight=False)
