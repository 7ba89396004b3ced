"""broker service-keys ...: the credentials of your own backends: create, list, rotate, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.opener import with_runtime, with_store
from app.cli.printer import AsJson, fail, print_json, print_line, print_note, print_table
from app.identity.caller import Scope
from app.identity.service_keys import keys
from app.identity.service_keys.keys import CreatedKey, StoredKey
from app.runtime import Runtime

cli = typer.Typer(no_args_is_help=True, help="Service keys: the credentials of your own backends.")

_LONGEST_DURATION = 36_500


@cli.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists and logs.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat for several.")] = None,
    owner: Annotated[list[str] | None, typer.Option(help="Limit it to this owner; repeat for several.")] = None,
    expires: Annotated[str, typer.Option(help="How long it is valid, such as 90d, 12h or never.")] = "90d",
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

    async def create(runtime: Runtime) -> CreatedKey:
        now = runtime.clock.now()
        async with runtime.database.transaction() as connection:
            return await keys.create_key(
                connection,
                name=name,
                scopes=scopes,
                owner_ids=owner or None,
                expires_at=None if life is None else now + life,
                now=now,
                pepper=_pepper(runtime),
                token_bytes=runtime.token_bytes,
            )

    _show_new_key(with_runtime(create), as_json=as_json)


@cli.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List service keys, without the keys themselves."""
    found = with_store(keys.list_keys)
    now = datetime.now(UTC)
    if as_json:
        print_json([_shown(key, now) for key in found])
        return
    print_table(
        ("id", "name", "scopes", "owners", "state", "expires", "last used"),
        [
            (
                key.key_id,
                key.name,
                " ".join(_names(key.scopes)),
                "all" if key.owner_ids is None else " ".join(sorted(key.owner_ids)),
                "active" if key.is_active(now) else "ended",
                key.expires_at,
                key.last_used_at,
            )
            for key in found
        ],
    )


@cli.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `broker service-keys list` shows it.")],
) -> None:
    """End a service key at once."""

    async def revoke(runtime: Runtime) -> bool:
        async with runtime.database.transaction() as connection:
            return await keys.revoke_key(connection, key_id, runtime.clock.now())

    if not with_runtime(revoke):
        fail("no active key has this id; see `broker service-keys list`")
    print_note("revoked")


@cli.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key to replace.")],
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid, such as 24h.")] = "24h",
    *,
    as_json: AsJson = False,
) -> None:
    """Replace a service key by a new one; both are valid during the overlap."""
    span = _duration(overlap)

    async def rotate(runtime: Runtime) -> CreatedKey:
        now = runtime.clock.now()
        async with runtime.database.transaction() as connection:
            return await keys.rotate_key(
                connection,
                key_id,
                overlap_until=now + span,
                now=now,
                pepper=_pepper(runtime),
                token_bytes=runtime.token_bytes,
            )

    _show_new_key(with_runtime(rotate), as_json=as_json)


def _names(scopes: frozenset[Scope]) -> list[str]:
    return sorted(scope.value for scope in scopes)


def _pepper(runtime: Runtime) -> bytes:
    return runtime.settings.service_keys.pepper.get_secret_value().encode()


def _duration(text: str, *, also: str = "") -> timedelta:
    units = {"d": "days", "h": "hours", "m": "minutes"}
    if not text[:-1].isdigit() or text[-1:] not in units or int(text[:-1]) > _LONGEST_DURATION:
        message = f"{text!r} is no duration here; write 90d, 12h, 30m{also}"
        raise typer.BadParameter(message)
    return timedelta(**{units[text[-1]]: int(text[:-1])})


def _shown(key: StoredKey, now: datetime) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": _names(key.scopes),
        "owner_ids": None if key.owner_ids is None else sorted(key.owner_ids),
        "active": key.is_active(now),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "rotated_to": key.rotated_to,
    }


def _show_new_key(created: CreatedKey, *, as_json: bool) -> None:
    """Print a new key: the one place that shows it."""
    if as_json:
        print_json({"key_id": created.key_id, "key": created.key, "expires_at": created.expires_at})
        return
    print_line(created.key)
    expires = created.expires_at.isoformat(timespec="minutes") if created.expires_at else "never"
    print_note(f"key {created.key_id}; save it now, it is not shown again (expires: {expires})")
