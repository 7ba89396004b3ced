"""Service keys, `sk_<key id>_<secret>`: create, list, rotate, revoke.

The secret has 256 random bits, so a fast keyed hash is enough: nobody can guess the secret, and a slow hash would only
let strangers use up our CPU. Without the pepper a stolen database does not help to test guessed keys.
"""

import base64
import hmac
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.repeats import await_standby
from app.errors import Conflict, NotFound, Unprocessable
from app.identity.caller import Scope
from app.identity.service_keys.tables import service_keys
from app.identity.tokens.claims import is_decent_text

KEY_PREFIX = "sk_"
TokenBytes = Callable[[int], bytes]

_KEY_ID_BYTES = 10  # base32 spells 10 bytes as 16 characters, without padding
_SECRET_BYTES = 32
_KEY = re.compile(r"sk_([a-z2-7]{16})_[A-Za-z0-9_-]{43}", re.ASCII)
_SHOWN = [column for column in service_keys.c if column.name != "secret_hash"]


@dataclass(frozen=True)
class CreatedKey:
    """A new key; its text is kept nowhere on our side."""

    key_id: str
    key: str = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True)
class StoredKey:
    """A key as the store has it, without its hash."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    owner_ids: frozenset[str] | None
    """The only owners that it may act for; None: every owner."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    rotated_to: str | None

    def is_active(self, now: datetime) -> bool:
        """Say whether the key is accepted at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def key_id_of(text: str) -> str | None:
    """Return the id inside a well-formed key, or None; nothing malformed ever reaches the database."""
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def hash_key(key: str, pepper: bytes) -> bytes:
    """Return what is stored of a key: HMAC-SHA-256 under the pepper, over id and secret together."""
    return hmac.digest(pepper, key.encode(), "sha256")


async def create_key(
    connection: AsyncConnection,
    *,
    name: str,
    scopes: Collection[Scope],
    owner_ids: Collection[str] | None,
    expires_at: datetime | None,
    now: datetime,
    pepper: bytes,
    token_bytes: TokenBytes,
) -> CreatedKey:
    """Make a key and store its hash.

    Raises Unprocessable for a key that could do nothing, and for a name or owner that is not decent text.
    """
    if not is_decent_text(name) or not scopes or not all(is_decent_text(owner_id) for owner_id in owner_ids or ()):
        message = "a key needs a name, at least one scope, and owner ids of printable text"
        raise Unprocessable(message)
    if owner_ids is not None and not owner_ids:
        # Not taken for None: "no owner" must never become "every owner".
        message = "an empty list of owners allows nothing; leave it out to allow every owner"
        raise Unprocessable(message)
    if expires_at is not None and expires_at <= now:
        message = "the expiry is not in the future"
        raise Unprocessable(message)
    created = _new_key(expires_at, token_bytes)
    row = _row(created, pepper, name=name, scopes=scopes, owner_ids=owner_ids, created_at=now)
    await connection.execute(service_keys.insert().values(row))
    return created


async def rotate_key(
    connection: AsyncConnection,
    key_id: str,
    *,
    overlap_until: datetime,
    now: datetime,
    pepper: bytes,
    token_bytes: TokenBytes,
) -> CreatedKey:
    """Make a successor with the same name, scopes, owners and length of life; the old key ends at `overlap_until`.

    Raises NotFound for an unknown key, Conflict for one that is revoked, expired or already rotated.
    """
    old = await find_key(connection, key_id)
    if old is None:
        message = "no such key"
        raise NotFound(message)
    created = _new_key(None if old.expires_at is None else now + (old.expires_at - old.created_at), token_bytes)
    ends_at = overlap_until if old.expires_at is None else min(overlap_until, old.expires_at)
    retired = await connection.execute(
        service_keys.update()
        .where(
            service_keys.c.key_id == key_id,
            # Checked inside the statement: of two people who rotate at once one must fail, or a second new key would
            # stay valid that nobody knows of.
            service_keys.c.rotated_to.is_(None),
            service_keys.c.revoked_at.is_(None),
            sa.or_(service_keys.c.expires_at.is_(None), service_keys.c.expires_at > now),
        )
        .values(rotated_to=created.key_id, expires_at=ends_at)
    )
    if retired.rowcount != 1:
        message = "the key is revoked, expired or already rotated"
        raise Conflict(message)
    row = _row(created, pepper, name=old.name, scopes=old.scopes, owner_ids=old.owner_ids, created_at=now)
    await connection.execute(service_keys.insert().values(row))
    return created


async def revoke_key(connection: AsyncConnection, key_id: str, now: datetime) -> bool:
    """End a key at once; False if there is no such key, or it was revoked before."""
    revoked = await connection.execute(
        service_keys.update()
        .where(service_keys.c.key_id == key_id, service_keys.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    if revoked.rowcount == 1:
        return True
    await await_standby(connection, service_keys, service_keys.c.key_id == key_id)
    return False


async def list_keys(connection: AsyncConnection) -> list[StoredKey]:
    """Return every key ever made, oldest first, without its hash."""
    rows = await connection.execute(sa.select(*_SHOWN).order_by(service_keys.c.created_at, service_keys.c.key_id))
    return [stored_key(row) for row in rows.mappings()]


async def find_key(connection: AsyncConnection, key_id: str) -> StoredKey | None:
    """Return one key, without its hash."""
    rows = await connection.execute(sa.select(*_SHOWN).where(service_keys.c.key_id == key_id))
    row = rows.mappings().one_or_none()
    return None if row is None else stored_key(row)


def stored_key(row: Mapping[str, Any] | sa.RowMapping) -> StoredKey:
    """Read a row; a scope that a newer version granted and this one does not know is left out."""
    values: dict[str, Any] = {column.name: row[column.name] for column in _SHOWN}
    known = {scope.value for scope in Scope}
    values["scopes"] = frozenset(Scope(name) for name in values["scopes"] if name in known)
    values["owner_ids"] = None if values["owner_ids"] is None else frozenset(values["owner_ids"])
    return StoredKey(**values)


def _new_key(expires_at: datetime | None, token_bytes: TokenBytes) -> CreatedKey:
    key_id = base64.b32encode(token_bytes(_KEY_ID_BYTES)).decode().lower()
    secret = base64.urlsafe_b64encode(token_bytes(_SECRET_BYTES)).decode().rstrip("=")
    return CreatedKey(key_id, f"{KEY_PREFIX}{key_id}_{secret}", expires_at)


def _row(
    created: CreatedKey,
    pepper: bytes,
    *,
    name: str,
    scopes: Collection[Scope],
    owner_ids: Collection[str] | None,
    created_at: datetime,
) -> dict[str, Any]:
    return {
        "key_id": created.key_id,
        "name": name,
        "secret_hash": hash_key(created.key, pepper),
        "scopes": sorted(scope.value for scope in scopes),
        "owner_ids": None if owner_ids is None else sorted(owner_ids),
        "created_at": created_at,
        "expires_at": created.expires_at,
    }
