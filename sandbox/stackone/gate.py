"""Who may call the API: the project's key, what it may do, and how often."""

import base64
import hmac
import math
from dataclasses import dataclass

from starlette.requests import Request

from sandbox.bodies import Rule, checked
from sandbox.clock import Clock
from sandbox.errors import ApiError

_WINDOW = 60
_KEY_RULES = {"key": Rule(not_empty=True), "lacks_scope": Rule(kind="boolean")}
_LIMIT_RULES = {"enabled": Rule(kind="boolean"), "per_minute": Rule(kind="integer", at_least=1)}


@dataclass
class ApiKey:
    """The one key of the project; `lacks_scope` leaves it genuine and useless."""

    value: str
    lacks_scope: bool = False

    def change(self, wish: dict[str, object]) -> None:
        """Follow the switch."""
        given = checked(wish, _KEY_RULES)
        self.value = str(given.get("key") or self.value)
        self.lacks_scope = bool(given.get("lacks_scope", self.lacks_scope))

    def admit(self, authorization: str | None) -> None:
        """Check the Basic credentials. Raises ApiError 401 for the caller, 403 for the key."""
        if authorization is None or not self._is_mine(authorization):
            raise ApiError(401, "Unauthorized")
        if self.lacks_scope:
            raise ApiError(403, "The API key lacks the required scope")

    def _is_mine(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            decoded = base64.b64decode(encoded.strip(), validate=True)
        except ValueError:
            return False
        # The colon belongs to it: leaving it out is the documented way to earn a 401.
        return hmac.compare_digest(decoded, f"{self.value}:".encode())


class Limits:
    """Calls per minute, counted in fixed windows; off until switched on."""

    def __init__(self, clock: Clock) -> None:
        """Start switched off, at the documented 1000."""
        self.enabled = False
        self.per_minute = 1000
        self._clock = clock
        self._window = 0
        self._count = 0

    def change(self, wish: dict[str, object]) -> None:
        """Follow the switch, and count from zero."""
        given = checked(wish, _LIMIT_RULES)
        self.enabled = bool(given.get("enabled", True))
        per_minute = given.get("per_minute")
        self.per_minute = per_minute if isinstance(per_minute, int) else 1000
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
