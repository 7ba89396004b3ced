"""broker accounts ...: look into the store."""

from typing import Annotated, Any

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.opener import with_store
from app.cli.printer import IDS, AsJson, fail, print_json, print_line, print_table
from app.linked_accounts.feed import history
from app.linked_accounts.store import LinkedAccount, find_of_any_owner, list_of_any_owner

cli = typer.Typer(no_args_is_help=True, help="Linked accounts, as the store has them.")

_SHOWN = (
    "account_id", "owner_id", "owner_name", "username", "provider", "status", "usable", "label", "type", "created_at",
    "updated_at", "verified_at", "needs_reauth_since", "refresh_due_at", "refresh_attempts", "disconnect_requested_at",
    "disconnect_requested_by", "deleted_at",
)  # fmt: skip


@cli.command("list")
def list_accounts(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only of this provider.")] = None,
    *,
    needs_reauth: Annotated[
        bool, typer.Option("--needs-reauth", help="Only those that somebody has to sign in for anew, longest first.")
    ] = False,
    after: Annotated[str | None, typer.Option(help="Begin after this account id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List accounts in the order of their ids, or those that must be reconnected, the longest broken first."""
    accounts = with_store(
        lambda connection: list_of_any_owner(
            connection, owner_id=owner, provider=provider, needs_reauth=needs_reauth, after=after, limit=limit
        )
    )
    if as_json:
        print_json([_shown(account) for account in accounts])
    else:
        print_table(
            ("account", "owner", "provider", "status", "broken since", "confirmed"),
            [
                (one.account_id, one.owner_id, one.provider, one.status, one.needs_reauth_since, one.verified_at)
                for one in accounts
            ],
        )


@cli.command("show", context_settings=IDS)
def show(account_id: Annotated[str, typer.Argument(help="Account id.")], *, as_json: AsJson = False) -> None:
    """Show everything about one account, deleted ones included, and its history."""

    async def read(connection: AsyncConnection) -> tuple[LinkedAccount | None, list[dict[str, Any]]]:
        return await find_of_any_owner(connection, account_id), await history(connection, account_id)

    account, events = with_store(read)
    if account is None:
        fail("the store has no such account; `broker sync` asks StackOne for all of them")
    if as_json:
        print_json({**_shown(account), "history": events})
        return
    for name, value in _shown(account).items():
        print_line(f"{name:24} {value}")
    for event in events:
        print_line(f"{event['at'].isoformat(timespec='seconds')}  {event['kind']}  {event['source']}  {event['actor']}")


def _shown(account: LinkedAccount) -> dict[str, Any]:
    return {name: getattr(account, name) for name in _SHOWN}
