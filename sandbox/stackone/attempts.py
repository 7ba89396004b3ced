"""OAuth attempts: pending, and then for good authenticated, error, cancelled or expired."""

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sandbox.clock import Clock, iso
from sandbox.errors import ApiError
from sandbox.stackone.accounts import nanoid
from sandbox.stackone.sessions import ConnectSession

AttemptStatus = Literal["pending", "authenticated", "error", "cancelled", "expired"]

_LIFETIME = timedelta(minutes=5)  # As long as the Hub polls.
_KEPT_ATTEMPTS = 5_000


@dataclass(kw_only=True)
class Attempt:
    """One try to link through a provider's page, bound to the session that began it."""

    id: str
    session: ConnectSession
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    status: AttemptStatus = "pending"
    account_id: str | None = None
    error_code: str | None = None
    error_description: str | None = None
    integration_id: str | None = None
    form: Mapping[str, object] = field(default_factory=dict)

    def for_the_hub(self) -> dict[str, object]:
        """Write what the Hub polls."""
        error = {"code": self.error_code, "description": self.error_description} if self.error_code else None
        return {
            "status": self.status,
            "account": {"id": self.account_id} if self.account_id else None,
            "error": error,
        }

    def for_the_backend(self) -> dict[str, object]:
        """Write `latest_connection_attempt` of a session."""
        return {
            "id": self.id,
            "created_at": iso(self.created_at),
            "updated_at": iso(self.updated_at),
            "status": self.status,
            "account_secure_id": self.account_id,
            "oauth_error_code": self.error_code,
            "oauth_error_description": self.error_description,
        }


class Attempts:
    """The newest attempts, and the one-time states that tie a provider's answer to one of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_id: OrderedDict[str, Attempt] = OrderedDict()
        self._by_state: dict[str, str] = {}

    def begin(self, session: ConnectSession) -> Attempt:
        """Start a pending attempt."""
        now = self._clock()
        attempt = Attempt(
            id=nanoid(),
            session=session,
            created_at=now,
            updated_at=now,
            expires_at=min(now + _LIFETIME, session.expires_at),
        )
        self._by_id[attempt.id] = attempt
        if len(self._by_id) > _KEPT_ATTEMPTS:
            forgotten, _ = self._by_id.popitem(last=False)
            self._by_state = {state: owner for state, owner in self._by_state.items() if owner != forgotten}
        return attempt

    def of(self, session: ConnectSession, attempt_id: str) -> Attempt:
        """Return the session's own attempt. Raises ApiError 404, also for somebody else's."""
        attempt = self._by_id.get(attempt_id)
        if attempt is None or attempt.session.id != session.id:
            raise ApiError(404, "Connection attempt not found")
        return self._aged(attempt)

    def latest(self, session: ConnectSession) -> Attempt | None:
        """Return the attempt that the session began last."""
        mine = [attempt for attempt in self._by_id.values() if attempt.session.id == session.id]
        return self._aged(mine[-1]) if mine else None

    def send_to_provider(self, attempt: Attempt, integration_id: str, form: Mapping[str, object]) -> str:
        """Keep the popup's form, and return the state that the provider must send back."""
        attempt.integration_id = integration_id
        attempt.form = form
        state = secrets.token_urlsafe(24)
        self._by_state[state] = attempt.id
        return state

    def come_back(self, state: str) -> Attempt:
        """Return the pending attempt of a state, which is used up by this. Raises ApiError 400."""
        attempt = self._by_id.get(self._by_state.pop(state, ""))
        if attempt is None or self._aged(attempt).status != "pending":
            raise ApiError(400, "This sign-in was already used, cancelled or has expired")
        return attempt

    def finish(self, attempt: Attempt, account_id: str) -> None:
        """Mark success; only a pending attempt has an outcome to receive."""
        if attempt.status == "pending":
            attempt.account_id = account_id
            self._move(attempt, "authenticated")

    def fail(self, attempt: Attempt, code: str, description: str) -> None:
        """Mark failure with what the provider said."""
        if attempt.status == "pending":
            attempt.error_code, attempt.error_description = code, description
            self._move(attempt, "error")

    def cancel(self, attempt: Attempt) -> None:
        """Mark that the user gave up; a finished attempt stays as it is."""
        if attempt.status == "pending":
            self._move(attempt, "cancelled")

    def clear(self) -> None:
        """Forget every attempt."""
        self._by_id.clear()
        self._by_state.clear()

    def _aged(self, attempt: Attempt) -> Attempt:
        if attempt.status == "pending" and attempt.expires_at <= self._clock():
            self._move(attempt, "expired")
        return attempt

    def _move(self, attempt: Attempt, status: AttemptStatus) -> None:
        attempt.status = status
        attempt.updated_at = self._clock()
