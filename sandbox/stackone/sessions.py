"""Connect sessions: what a request for one may hold, what it is answered with, and how long it holds."""

import secrets
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from sandbox.bodies import Body, JsonObject, Text
from sandbox.clock import Clock, iso
from sandbox.errors import ApiError, bad_request

Category = Literal[
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
]

_ORGANIZATION_ID = 27_270
_DEFAULT_EXPIRES_IN = 1800
_FIRST_ID = 4_217_001
_KEPT_SESSIONS = 20_000


class SessionRequest(Body):
    """The documented request, and nothing else. That unknown properties are refused is inferred: callers stay exact.

    `provider_version` is one of them: it is deprecated and documented to make session creation fail at times.
    """

    origin_owner_id: Text
    origin_owner_name: Text
    origin_username: str | None = None
    provider: str | None = None
    categories: list[Category] = Field(default_factory=list)
    account_id: str | None = None
    multiple: bool = False
    expires_in: Annotated[float, Field(ge=1)] = _DEFAULT_EXPIRES_IN
    metadata: JsonObject = Field(default_factory=dict)
    label: str | None = None
    type: Literal["production", "test"] = "production"
    connector_profile_id: str | None = None
    integration_id: str | None = None
    shared: bool = True
    relink: bool = False
    scopes: bool = False


class ConnectSession(SessionRequest):
    """One session. Only its holder's token opens the Hub; nothing about it changes but its end."""

    id: int
    token: str
    created_at: datetime
    expires_at: datetime
    external_trigger_token: str

    def to_json(self, project_id: str) -> JsonObject:
        """Write the session without its token and link. There is no expiry in it: StackOne sends none."""
        echoed = {"origin_owner_id", "origin_owner_name", "origin_username", "provider", "account_id", "label"}
        return {
            **self.model_dump(include={"id", "metadata", "external_trigger_token", "type", *echoed}),
            "organization_id": _ORGANIZATION_ID,
            "project_id": project_id,
            "categories": self.categories or None,
            "integration_id": self.connector_profile_id,
            "connector_profile_id": self.connector_profile_id,
            "created_at": iso(self.created_at),
        }


class Sessions:
    """The newest sessions of the project, by token."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_token: OrderedDict[str, ConnectSession] = OrderedDict()
        self._next_id = _FIRST_ID

    def create(self, request: SessionRequest) -> ConnectSession:
        """Make a session. Raises ApiError 400 for one that would outlive the calendar."""
        now = self._clock()
        try:
            expires_at = now + timedelta(seconds=request.expires_in)
        except OverflowError as error:
            raise bad_request("expires_in: Input is too large") from error
        session = ConnectSession.model_construct(
            **{
                **dict(request),
                "connector_profile_id": request.connector_profile_id or request.integration_id,
                "id": self._next_id,
                "token": secrets.token_urlsafe(32),
                "created_at": now,
                "expires_at": expires_at,
                "external_trigger_token": str(uuid.uuid4()),
            }
        )
        self._next_id += 1
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
