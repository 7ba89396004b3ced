"""Checking a service key that a request carries."""

import hmac
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
import structlog

from app.clock import Clock
from app.db.database import Database
from app.db.statements import Statement
from app.identity.caller import CredentialKind, Service
from app.identity.refusal import Refused
from app.identity.service_keys.keys import hash_key, key_id_of, stored_key
from app.identity.service_keys.tables import service_keys

logger = structlog.get_logger(__name__)

_USE_NOTED_EVERY_SECONDS = 60.0
_NO_HASH = bytes(32)
_ONE = Statement(sa.select(service_keys).where(service_keys.c.key_id == sa.bindparam("key_id")))


class ServiceKeys:
    """Authenticates service keys against the store; a revoked key is refused from the next request on."""

    def __init__(self, database: Database, peppers: Sequence[bytes], clock: Clock) -> None:
        """`peppers`: the current one first, then those still accepted while keys are being replaced."""
        self._database = database
        self._peppers = tuple(peppers)
        self._clock = clock
        self._use_noted_at: dict[str, float] = {}

    async def authenticate(self, text: str) -> Service:
        """Return the service whose key this is. Raises Refused, or Unavailable if the store cannot be asked."""
        key_id = key_id_of(text)
        if key_id is None:
            reason = "a malformed service key"
            raise Refused(reason)
        found = await self._database.fetch(_ONE, {"key_id": key_id})
        row = dict(zip(service_keys.c.keys(), found[0], strict=True)) if found else None
        # An unknown id is compared too, against a hash that no key has, and always with every pepper: how long an
        # answer takes does not tell which ids exist.
        stored_hash = _NO_HASH if row is None else bytes(row["secret_hash"])
        matches = [hmac.compare_digest(hash_key(text, pepper), stored_hash) for pepper in self._peppers]
        if row is None or not any(matches):
            reason = "an unknown service key"
            raise Refused(reason)
        key = stored_key(row)
        now = self._clock.now()
        if not key.is_active(now):
            reason = "a revoked or expired service key"
            raise Refused(reason)
        await self._note_use(key_id, now)
        return Service(
            credential_id=key.key_id, name=key.name, scopes=key.scopes, owner_ids=key.owner_ids, kind=CredentialKind.KEY
        )

    async def _note_use(self, key_id: str, now: datetime) -> None:
        """Record that a key is in use, at most once a minute; a failure to do so does not refuse the caller."""
        noted_at = self._use_noted_at.get(key_id)
        monotonic = self._clock.monotonic()
        if noted_at is not None and monotonic - noted_at < _USE_NOTED_EVERY_SECONDS:
            return
        # Before the write: of many concurrent requests only one writes, and not each asks a failing store.
        self._use_noted_at[key_id] = monotonic
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    service_keys.update().where(service_keys.c.key_id == key_id).values(last_used_at=now)
                )
        except Exception as error:  # noqa: BLE001  read-only store, full disk, lost connection: the key is still good
            logger.warning("service_key_use_not_noted", key_id=key_id, error_type=type(error).__name__)
