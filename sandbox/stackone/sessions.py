"""Connect sessions: what one may ask for, what comes back, and how long it holds."""

import secrets
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sandbox.bodies import Rule, complaints
from sandbox.clock import Clock, iso
from sandbox.errors import ApiError

ORGANIZATION_ID = "27270"
CATEGORIES = frozenset(
    {
        "ats",
        "hris",
        "hris-legacy",
        "crm",
        "iam",
        "marketing",
        "lms",
        "stackone",
        "documents",
        "ticketing",
        "screening",
        "messaging",
        "accounting",
        "scheduling",
    }
)
_DEFAULT_EXPIRES_IN = 1800
_KEPT_SESSIONS = 20_000

# The documented request, and nothing else. That unknown properties are refused is inferred; it keeps callers honest.
SESSION_RULES: Mapping[str, Rule] = {
    "origin_owner_id": Rule(required=True, not_empty=True),
    "origin_owner_name": Rule(required=True, not_empty=True),
    "origin_username": Rule(),
    "provider": Rule(),
    "categories": Rule(kind="strings", one_of=CATEGORIES),
    "account_id": Rule(),
    "multiple": Rule(kind="boolean"),
    "expires_in": Rule(kind="number", at_least=1),
    "metadata": Rule(kind="object"),
    "label": Rule(),
    "type": Rule(one_of=frozenset({"production", "test"})),
    "connector_profile_id": Rule(),
    "integration_id": Rule(),
    "shared": Rule(kind="boolean"),
    "relink": Rule(kind="boolean"),
    "scopes": Rule(kind="boolean"),
}


@dataclass(frozen=True, kw_only=True)
class ConnectSession:
    """One session. Only its holder's token opens the Hub; nothing about it changes but its end."""

    id: int
    token: str
    created_at: datetime
    expires_at: datetime
    origin_owner_id: str
    origin_owner_name: str
    origin_username: str | None
    provider: str | None
    categories: tuple[str, ...]
    account_id: str | None
    multiple: bool
    metadata: Mapping[str, object]
    label: str | None
    type: str
    connector_profile_id: str | None
    shared: bool
    external_trigger_token: str

    def to_json(self, project_id: str) -> dict[str, object]:
        """Write the session without its token and link. There is no expiry in it: StackOne sends none."""
        return {
            "id": self.id,
            "organization_id": ORGANIZATION_ID,
            "project_id": project_id,
            "categories": list(self.categories) or None,
            "provider": self.provider,
            "origin_owner_id": self.origin_owner_id,
            "origin_owner_name": self.origin_owner_name,
            "origin_username": self.origin_username,
            "account_id": self.account_id,
            "label": self.label,
            "metadata": dict(self.metadata),
            "external_trigger_token": self.external_trigger_token,
            "type": self.type,
            "integration_id": self.connector_profile_id,
            "connector_profile_id": self.connector_profile_id,
            "created_at": iso(self.created_at),
        }


class Sessions:
    """The newest sessions of the project, by token."""

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._by_token: OrderedDict[str, ConnectSession] = OrderedDict()
        self._last_id = 4_217_000

    def create(self, body: Mapping[str, object]) -> ConnectSession:
        """Make a session from a request body. Raises ApiError 400 with every complaint about it."""
        found = complaints({name: body[name] for name in body if name != "provider_version"}, SESSION_RULES)
        if "provider_version" in body:
            found.append("provider_version is deprecated and can make session creation fail")
        if found:
            raise ApiError(400, "Bad Request", errors=found)
        now = self._clock()
        lifetime = cast("float | None", body.get("expires_in")) or _DEFAULT_EXPIRES_IN
        try:
            expires_at = now + timedelta(seconds=lifetime)
        except OverflowError as error:
            raise ApiError(400, "Bad Request", errors=["expires_in is too large"]) from error
        self._last_id += 1
        session = _session(body, session_id=self._last_id, now=now, expires_at=expires_at)
        self._by_token[session.token] = session
        if len(self._by_token) > _KEPT_SESSIONS:
            self._by_token.popitem(last=False)
        return session

    def open(self, token: str) -> ConnectSession:
        """Return the session a token opens. Raises ApiError 401 for a foreign, revoked or expired one."""
        session = self._by_token.get(token)
        if session is None or session.expires_at <= self._clock():
            raise ApiError(401, "Invalid or expired session token")
        return session

    def revoke(self, token: str) -> bool:
        """End a session early; tell whether there was one."""
        return self._by_token.pop(token, None) is not None

    def __iter__(self) -> Iterator[ConnectSession]:
        """Go through the sessions that are kept, oldest first."""
        return iter(self._by_token.values())

    def clear(self) -> None:
        """Forget every session."""
        self._by_token.clear()


def _session(body: Mapping[str, object], *, session_id: int, now: datetime, expires_at: datetime) -> ConnectSession:
    def text(name: str) -> str | None:
        return cast("str | None", body.get(name))

    shared = body.get("shared")
    return ConnectSession(
        id=session_id,
        token=secrets.token_urlsafe(32),
        created_at=now,
        expires_at=expires_at,
        origin_owner_id=str(body["origin_owner_id"]),
        origin_owner_name=str(body["origin_owner_name"]),
        origin_username=text("origin_username"),
        provider=text("provider"),
        categories=tuple(cast("list[str] | None", body.get("categories")) or ()),
        account_id=text("account_id"),
        multiple=bool(body.get("multiple")),
        metadata=cast("dict[str, object] | None", body.get("metadata")) or {},
        label=text("label"),
        type=text("type") or "production",
        connector_profile_id=text("connector_profile_id") or text("integration_id"),
        shared=True if shared is None else bool(shared),
        external_trigger_token=str(uuid.uuid4()),
    )
