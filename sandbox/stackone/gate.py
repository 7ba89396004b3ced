"""Who may call the API: the project's key, what it may do, and how often."""

import base64
import hmac
import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from starlette.requests import Request

from sandbox.bodies import Body, Text
from sandbox.clock import Clock
from sandbox.errors import ApiError

_WINDOW = 60
_PER_MINUTE = 1000  # Documented.


class KeyChange(Body):
    """What the switch for the key may change."""

    key: Text | None = None
    second_key: Text | None = None
    lacks_scope: bool | None = None


class LimitChange(Body):
    """What the switch for the limit may set."""

    enabled: bool = True
    per_minute: Annotated[int, Field(ge=1)] = _PER_MINUTE


@dataclass
class ApiKey:
    """The key of the project, and a second one while it is rotated; with `lacks_scope` they may do nothing.

    A change that names no second key ends it.
    """

    value: str
    second: str | None = None
    lacks_scope: bool = False

    def change(self, wanted: KeyChange) -> None:
        """Change what is named."""
        self.value = wanted.key or self.value
        self.second = wanted.second_key
        self.lacks_scope = self.lacks_scope if wanted.lacks_scope is None else wanted.lacks_scope

    def admit(self, authorization: str | None, *, colon_needed: bool) -> None:
        """Check the Basic credentials. Raises ApiError 401 for the caller, 403 for the key."""
        # The colon belongs to it: leaving it out is the documented way to earn a 401.
        credentials = self._decoded(authorization or "")
        keys = [key for key in (self.value, self.second) if key is not None]
        accepted = [f"{key}:" for key in keys] + ([] if colon_needed else keys)
        if not any(hmac.compare_digest(credentials, key.encode()) for key in accepted):
            raise ApiError(401, "Unauthorized")
        if self.lacks_scope:
            raise ApiError(403, "The API key lacks the required scope")

    @staticmethod
    def _decoded(authorization: str) -> bytes:
        scheme, _, encoded = authorization.partition(" ")
        try:
            return base64.b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
        except ValueError:
            return b""


class Limits:
    """Calls per minute, counted in fixed windows; off until switched on."""

    def __init__(self, clock: Clock) -> None:
        self.enabled = False
        self.per_minute = _PER_MINUTE
        self._clock = clock
        self._window = 0
        self._count = 0

    def change(self, wanted: LimitChange) -> None:
        """Set the limit, and count from zero."""
        self.enabled = wanted.enabled
        self.per_minute = wanted.per_minute
        self._count = 0

    def count(self) -> None:
        """Count one call. Raises ApiError 429 with Retry-After beyond the limit."""
        if not self.enabled:
            return
        now = self._clock().timestamp()
        window = math.floor(now / _WINDOW)
        if window != self._window:
            self._window, self._count = window, 0
        self._count += 1
        if self._count > self.per_minute:
            seconds = math.ceil((window + 1) * _WINDOW - now)
            raise ApiError(429, "Too Many Requests", headers={"retry-after": str(max(1, seconds))})


def refuse_nameless_clients(request: Request) -> None:
    """Refuse a call without User-Agent, as an old StackOne error guide says its firewall does. Raises ApiError 403."""
    if not request.headers.get("user-agent"):
        raise ApiError(403, "Forbidden")
