"""broker owners ...: pin a name, erase everything of an owner at StackOne and here."""

import getpass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from app.cli.opener import with_database, with_runtime, with_store
from app.cli.printer import IDS, AsJson, fail, print_json, print_line, print_note, print_problem, print_table
from app.cli.progress import RowsProgress
from app.clock import SystemClock
from app.db.database import Database
from app.inputs import OwnerId
from app.owners.adoption import Adopted, FileMistakesError, adopt, read_table
from app.owners.erasure import erase_owner
from app.owners.listing import owners_after
from app.owners.names import Pin, pin
from app.owners.schemas import ErasureReceipt, OwnerName, OwnerOut, PinnedName

_EXIT_PENDING = 3
_LARGEST_TABLE_BYTES = 64 * 1024**2
_SHOWN = 20

cli = typer.Typer(
    no_args_is_help=True, help="Owners: the names that StackOne knows them by, import of a table, and erasure."
)


@cli.command("list")
def list_all(
    after: Annotated[str | None, typer.Option(help="Begin after this owner id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    *,
    as_json: AsJson = False,
) -> None:
    """List owners in the order of their ids, with how their accounts stand."""
    found = with_store(lambda connection: owners_after(connection, after, None, limit=limit))
    if as_json:
        print_json([OwnerOut.of(owner) for owner in found])
        return
    print_table(
        ("owner", "name", "accounts", "to reconnect", "last change"),
        [(one.owner_id, one.owner_name, one.accounts, one.needs_reauth, one.last_change_at) for one in found],
    )


@cli.command("erase", context_settings=IDS)
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


@cli.command("pin", context_settings=IDS)
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


@cli.command("import")
def import_table(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            help="CSV with the columns owner_id, name, account_ids (ids between blanks), or JSON lines of the same.",
        ),
    ],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take over a table of owners: pin their names, and have their accounts read at StackOne by a running broker.

    Whose an account is comes from StackOne alone; the table's word is not stored. Once more does nothing more.
    Exit status: 0 done, 1 the file has mistakes (nothing is done then), 3 the table differs from what is known.
    """
    if file.stat().st_size > _LARGEST_TABLE_BYTES:
        fail(f"{file.name} is larger than {_LARGEST_TABLE_BYTES // 1024**2} MiB; split it")
    try:
        rows = read_table(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        fail(f"{file.name} is not UTF-8; save it as UTF-8")
    except FileMistakesError as error:
        for mistake in error.mistakes:
            print_problem(mistake)
        fail("nothing was imported; correct these lines")

    async def work(database: Database) -> Adopted:
        actor = f"operator:{getpass.getuser()}"
        with RowsProgress("import", len(rows)) as progress:
            return await adopt(database, rows, clock=SystemClock(), actor=actor, dry_run=dry_run, told=progress.show)

    adopted = with_database(work)
    if as_json:
        print_json(adopted)
    else:
        _tell_import(adopted)
    if adopted.other_names or adopted.other_owners:
        raise typer.Exit(_EXIT_PENDING)


def _tell_import(adopted: Adopted) -> None:
    would = "would be " if adopted.dry_run else ""
    print_line(
        f"{adopted.owners} owners: {adopted.pinned} names {would}pinned, {adopted.marked} accounts {would}marked to be"
        f" read, {adopted.known} known already"
    )
    for owner_id, name, pinned in adopted.other_names[:_SHOWN]:
        print_note(f"{owner_id}: {pinned!r} is pinned, and stays; {name!r} of the table does not count (owners pin)")
    for account_id, owner_id, other in adopted.other_owners[:_SHOWN]:
        print_note(f"{account_id}: is {other!r}'s at StackOne, not {owner_id!r}'s as in the table")
    more = len(adopted.other_names) + len(adopted.other_owners) - 2 * _SHOWN
    if more > 0:
        print_note("there are more; --json has all of them")
