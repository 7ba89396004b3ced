"""broker service-keys ...: the credentials of your own backends, from their making to their end."""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from app.cli.opener import configured_secrets, err, out
from app.db.database import Database
from app.db.engine import open_engine
from app.identity.caller import Scope
from app.identity.service_keys import keys as api_keys
from app.logs import configure_logs
from app.settings import Settings, load_settings

keys_cli = typer.Typer(no_args_is_help=True, help="Service keys: the credentials of your own backends.")

_EXIT_FAILURE = 1
_LONGEST_DURATION = 36_500

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Result = TypeVar("Result")


@keys_cli.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists and logs.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat for several.")] = None,
    owner: Annotated[list[str] | None, typer.Option(help="Limit it to this owner; repeat for several.")] = None,
    expires: Annotated[str, typer.Option(help="Its life, such as 90d, 12h or never.")] = "90d",
    *,
    all_scopes: Annotated[bool, typer.Option("--all-scopes", help="Give it every scope.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create a service key. It is shown once and cannot be shown again."""
    scopes = set(Scope) if all_scopes else set(scope or ())
    if not scopes:
        message = "give at least one --scope, or --all-scopes"
        raise typer.BadParameter(message)
    life = None if expires == "never" else _duration(expires, also=" or never")

    async def create(settings: Settings, database: Database) -> api_keys.CreatedKey:
        now = datetime.now(UTC)
        async with database.transaction() as connection:
            return await api_keys.create_key(
                connection,
                name=name,
                scopes=scopes,
                owner_ids=owner or None,
                expires_at=None if life is None else now + life,
                now=now,
                pepper=settings.service_keys.pepper.get_secret_value().encode(),
                token_bytes=secrets.token_bytes,
            )

    _show_new_key(_with_database(create), as_json=as_json)


@keys_cli.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List service keys, without the keys themselves."""

    async def read(_settings: Settings, database: Database) -> list[api_keys.StoredKey]:
        async with database.reading() as connection:
            return await api_keys.list_keys(connection)

    keys = _with_database(read)
    now = datetime.now(UTC)
    if as_json:
        sys.stdout.write(json.dumps([_key_as_json(key, now) for key in keys]) + "\n")
        return
    table = Table("id", "name", "scopes", "owners", "state", "expires", "last used")
    for key in keys:
        table.add_row(
            key.key_id,
            key.name,
            " ".join(sorted(key.scopes)),
            "all" if key.owner_ids is None else " ".join(sorted(key.owner_ids)),
            "active" if key.is_active(now) else "ended",
            _moment(key.expires_at),
            _moment(key.last_used_at),
        )
    out.print(table)


@keys_cli.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `broker service-keys list` shows it.")],
) -> None:
    """End a service key at once."""

    async def revoke(_settings: Settings, database: Database) -> bool:
        async with database.transaction() as connection:
            return await api_keys.revoke_key(connection, key_id, datetime.now(UTC))

    if not _with_database(revoke):
        err.print("no active key has this id; see `broker service-keys list`", style="bold red")
        sys.exit(_EXIT_FAILURE)
    err.print("revoked")


@keys_cli.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key to replace.")],
    overlap: Annotated[str, typer.Option(help="How long the old key still counts, such as 24h.")] = "24h",
    *,
    as_json: AsJson = False,
) -> None:
    """Replace a service key by a new one; both count during the overlap."""
    span = _duration(overlap)

    async def rotate(settings: Settings, database: Database) -> api_keys.CreatedKey:
        now = datetime.now(UTC)
        async with database.transaction() as connection:
            return await api_keys.rotate_key(
                connection,
                key_id,
                overlap_until=now + span,
                now=now,
                pepper=settings.service_keys.pepper.get_secret_value().encode(),
                token_bytes=secrets.token_bytes,
            )

    _show_new_key(_with_database(rotate), as_json=as_json)


@asynccontextmanager
async def _opened_database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(open_engine(settings.database))
    try:
        yield database
    finally:
        await database.close()


def _with_database(work: Callable[[Settings, Database], Awaitable[Result]]) -> Result:
    """Run `work(settings, database)` on an opened database."""
    settings = load_settings()
    configure_logs("ERROR", configured_secrets(settings))

    async def run() -> Result:
        async with _opened_database(settings) as database:
            return await work(settings, database)

    return asyncio.run(run())


def _duration(text: str, *, also: str = "") -> timedelta:
    units = {"d": "days", "h": "hours", "m": "minutes"}
    if not text[:-1].isdigit() or text[-1:] not in units or int(text[:-1]) > _LONGEST_DURATION:
        message = f"{text!r} is no duration here; write 90d, 12h, 30m{also}"
        raise typer.BadParameter(message)
    return timedelta(**{units[text[-1]]: int(text[:-1])})


def _moment(value: datetime | None) -> str:
    return value.isoformat(timespec="minutes") if value else "-"


def _key_as_json(key: api_keys.StoredKey, now: datetime) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "owner_ids": sorted(key.owner_ids) if key.owner_ids is not None else None,
        "active": key.is_active(now),
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "last_used_at": key.last_used_at.isoformat() if key.last_used_at else None,
        "rotated_to": key.rotated_to,
    }


def _show_new_key(created: api_keys.CreatedKey, *, as_json: bool) -> None:
    """Print a new key: the one place that shows it."""
    if as_json:
        expires = created.expires_at.isoformat() if created.expires_at else None
        sys.stdout.write(json.dumps({"key_id": created.key_id, "key": created.key, "expires_at": expires}) + "\n")
        return
    sys.stdout.write(created.key + "\n")
    err.print(f"key {created.key_id}; keep it now, it is not shown again (expires {_moment(created.expires_at)})")
