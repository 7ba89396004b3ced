"""The two kinds of verified caller. Only this package makes them; a handler that asks for one cannot get the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from app.errors import InsufficientScope


class Scope(StrEnum):
    """What a service credential may do."""

    SESSIONS_WRITE = "sessions:write"
    ACCOUNTS_READ = "accounts:read"
    ACCOUNTS_WRITE = "accounts:write"
    EVENTS_READ = "events:read"
    SYNC_WRITE = "sync:write"
    POLICY_READ = "policy:read"
    OWNERS_WRITE = "owners:write"


@dataclass(frozen=True)
class EndUser:
    """A person whose token was verified; `owner_id` is the only source of "whose data" at the browser channel."""

    issuer: str
    subject: str
    owner_id: str
    owner_name: str
    username: str | None
    # Every verified claim, for policy; out of repr() because claims are personal data.
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def actor(self) -> str:
        """Name who did something, for the ledger and the audit trail."""
        return f"user:{self.subject}"


@dataclass(frozen=True)
class Service:
    """A backend with a service key or a machine token; `owner_ids` of None means every owner."""

    credential_id: str
    name: str
    scopes: frozenset[Scope]
    owner_ids: frozenset[str] | None
    kind: Literal["key", "machine"]

    @property
    def actor(self) -> str:
        """Name who did something, for the ledger and the audit trail."""
        return f"service:{self.credential_id}"

    def require(self, scope: Scope, owner_id: str | None = None) -> None:
        """Raise InsufficientScope unless this credential has the scope and, if one is named, the owner."""
        if scope not in self.scopes:
            raise InsufficientScope(scope)
        if owner_id is not None and self.owner_ids is not None and owner_id not in self.owner_ids:
            # The same text whether or not that owner exists: a limited credential cannot find out who else is served.
            raise InsufficientScope(scope, "this credential is limited to certain owners, and this is not one of them")
