"""broker accounts ...: look into the store."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.opener import err, out, with_runtime
from app.linked_accounts.feed import history
from app.linked_accounts.store import LinkedAccount, find_of_any_owner, list_of_any_owner
from app.runtime import Runtime

accounts_cli = typer.Typer(no_args_is_help=True, help="Linked accounts, as the store has them.")

_EXIT_UNKNOWN = 1
_SHOWN = (
    "account_id", "owner_id", "owner_name", "username", "provider", "status", "usable", "label", "type", "created_at",
    "updated_at", "verified_at", "needs_reauth_since", "refresh_due_at", "refresh_attempts", "disconnect_requested_at",
    "disconnect_requested_by", "deleted_at",
)  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@accounts_cli.command("list")
def list_accounts(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only of this provider.")] = None,
    after: Annotated[str | None, typer.Option(help="Begin behind this account id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    *,
    as_json: AsJson = False,
) -> None:
    """List accounts in the order of their ids."""

    async def read(runtime: Runtime) -> list[LinkedAccount]:
        async with runtime.database.reading() as connection:
            return await list_of_any_owner(connection, owner_id=owner, provider=provider, after=after, limit=limit)

    accounts = with_runtime(read)
    if as_json:
        sys.stdout.write(json.dumps([_as_json(account) for account in accounts]) + "\n")
        return
    table = Table("account", "owner", "provider", "status", "confirmed")
    for account in accounts:
        confirmed = account.verified_at.isoformat(timespec="seconds") if account.verified_at else "-"
        table.add_row(account.account_id, account.owner_id, account.provider, account.status, confirmed)
    out.print(table)


@accounts_cli.command("show")
def show(account_id: Annotated[str, typer.Argument(help="Account id.")], *, as_json: AsJson = False) -> None:
    """Show everything about one account, deleted ones included, and its history."""

    async def read(runtime: Runtime) -> tuple[LinkedAccount | None, list[dict[str, Any]]]:
        async with runtime.database.reading() as connection:
            return await find_of_any_owner(connection, account_id), await history(connection, account_id)

    account, events = with_runtime(read)
    if account is None:
        err.print("the store has no such account; `broker sync` asks StackOne for all of them", style="bold red")
        sys.exit(_EXIT_UNKNOWN)
    if as_json:
        sys.stdout.write(json.dumps({**_as_json(account), "history": events}, default=str) + "\n")
        return
    for name, value in _as_json(account).items():
        out.print(f"{name:24} {value}", markup=False, highlight=False)
    for event in events:
        line = f"{event['at'].isoformat(timespec='seconds')}  {event['kind']}  {event['source']}  {event['actor']}"
        out.print(line, markup=False, highlight=False)


def _as_json(account: LinkedAccount) -> dict[str, Any]:
    values = {name: getattr(account, name) for name in _SHOWN}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}
