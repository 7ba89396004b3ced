"""The two verified callers, a user and a service. Only this package makes them, and no route accepts both."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from app.errors import InsufficientScope

# As long as the columns are.
_LONGEST_ACTOR = 300


class Scope(Enum):
    """What a service credential may do."""

    SESSIONS_WRITE = "sessions:write"
    ACCOUNTS_READ = "accounts:read"
    ACCOUNTS_WRITE = "accounts:write"
    EVENTS_READ = "events:read"
    SYNC_WRITE = "sync:write"
    POLICY_READ = "policy:read"
    OWNERS_WRITE = "owners:write"
    USERS_WRITE = "users:write"
    PUSH_WRITE = "push:write"


class CredentialKind(Enum):
    """What a service proves itself with."""

    KEY = "key"
    MACHINE_TOKEN = "machine"  # noqa: S105  a kind, not a token


@dataclass(frozen=True)
class Owner:
    """For whom something is done, and who asks for it; everything here is verified."""

    owner_id: str
    owner_name: str
    username: str | None
    requested_by: str
    # Of the user's token, for policy; a service has none.
    claims: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class EndUser:
    """A person whose token was verified; on browser routes `owner_id` alone says whose data is meant."""

    issuer: str
    subject: str
    owner_id: str
    owner_name: str
    username: str | None
    claims: Mapping[str, Any] = field(repr=False)
    """Every verified claim, for policy; not in repr() because claims are personal data."""

    @property
    def actor(self) -> str:
        """Name who did something, for the ledger and the audit trail: a subject means something to its issuer only."""
        actor = f"user:{self.subject}@{self.issuer}"
        if len(actor) <= _LONGEST_ACTOR:
            return actor
        return f"user:{self.subject}@{hashlib.sha256(self.issuer.encode()).hexdigest()[:16]}"

    @property
    def owner(self) -> Owner:
        """The owner that this person belongs to."""
        return Owner(self.owner_id, self.owner_name, self.username, self.actor, self.claims)


@dataclass(frozen=True)
class Service:
    """A backend with a service key or a machine token."""

    credential_id: str
    name: str
    scopes: frozenset[Scope]
    owner_ids: frozenset[str] | None
    """The only owners that it may act for; None: every owner."""
    kind: CredentialKind

    @property
    def actor(self) -> str:
        """Name who did something, for the ledger and the audit trail."""
        return f"service:{self.credential_id}"

    def on_behalf_of(self, owner_id: str, owner_name: str | None, username: str | None) -> Owner:
        """Return an owner that `require` let this service act for."""
        return Owner(owner_id, owner_name or owner_id, username, self.actor, {})

    def require_all_owners(self, scope: Scope) -> None:
        """Raise InsufficientScope if this credential is limited to some owners."""
        if self.owner_ids is not None:
            raise InsufficientScope(scope.value, "this credential is limited to certain owners")

    def require(self, scope: Scope, owner_id: str | None = None) -> None:
        """Raise InsufficientScope unless this credential has the scope and, if one is named, the owner."""
        if scope not in self.scopes:
            raise InsufficientScope(scope.value)
        if owner_id is not None and self.owner_ids is not None and owner_id not in self.owner_ids:
            # The same text whether or not that owner exists: a limited credential cannot find out who else is served.
            raise InsufficientScope(
                scope.value, "this credential is limited to certain owners, and this is not one of them"
            )
