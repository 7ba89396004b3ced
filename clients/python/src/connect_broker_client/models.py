"""What the broker answers. Fields that a newer broker adds are ignored; states are text: a new one breaks nobody."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr


class _Answer(BaseModel):
    """An answer; read only."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class StatusReason(_Answer):
    """Why an account has its status, in StackOne's words."""

    code: str | None = None
    description: str | None = None
    timestamp: str | None = None


class Account(_Answer):
    """A linked account."""

    account_id: str
    owner_id: str
    owner_name: str | None
    username: str | None
    provider: str
    status: str
    usable: bool
    leaving: bool = False
    needs_reauth: bool
    needs_reauth_since: datetime | None
    recovered_at: datetime | None = None
    status_reasons: list[StatusReason]
    label: str | None
    type: str | None
    created_at: datetime | None
    updated_at: datetime | None
    verified_at: datetime
    stale: bool = False


class Repair(_Answer):
    """How a broken account comes to work again."""

    url: str | None
    username: str | None = Field(alias="for")
    provider: str
    label: str | None
    since: datetime
    reasons: list[StatusReason] = []


class Event(_Answer):
    """One change of one account; `account` is the account as it is now, None once it is gone or moved."""

    position: int
    kind: str
    account_id: str
    owner_id: str | None
    provider: str | None
    at: datetime
    source: str
    actor: str
    changes: dict[str, Any] | None = None
    account: Account | None = None
    repair: Repair | None = None
    _cursor: str = PrivateAttr(default="")

    @property
    def cursor(self) -> str:
        """Keep it once the change is dealt with: `follow(after=cursor)` goes on behind it."""
        return self._cursor or str(self.position)


class EventPage(_Answer):
    """The next changes, and where to go on."""

    data: list[Event]
    next_cursor: str
    head: str

    @property
    def is_at_head(self) -> bool:
        """Whether nothing lay behind these changes when they were read."""
        return int(self.next_cursor.partition(".")[0]) >= int(self.head)


class AccountPage(_Answer):
    """A page of accounts; `feed_position` belongs to a snapshot."""

    data: list[Account]
    next_cursor: str | None
    feed_position: str | None = None


class Owner(_Answer):
    """An owner, with how its accounts stand."""

    owner_id: str
    owner_name: str | None
    accounts: int
    needs_reauth: int
    by_status: dict[str, int]
    last_change_at: datetime | None


class OwnerPage(_Answer):
    """A page of owners."""

    data: list[Owner]
    next_cursor: str | None


class Session(_Answer):
    """A connect session. Its token opens the Hub, and is shown by `token.get_secret_value()` only."""

    id: str
    token: SecretStr
    auth_link_url: SecretStr
    expires_at: datetime
    expires_in: int
    mode: str
    account_id: str | None
    provider: str | None
    owner_id: str
    owner_name: str
    name_pinned: bool


class AuthLink(_Answer):
    """A link with which a person links or re-authenticates an account."""

    id: str
    auth_link_url: SecretStr
    expires_at: datetime
    expires_in: int
    mode: str
    account_id: str | None
    provider: str | None
    owner_id: str
    owner_name: str
    name_pinned: bool

    @property
    def url(self) -> str:
        """The link itself. Whoever has it can use it: send it to the person only."""
        return self.auth_link_url.get_secret_value()


class SessionStatus(_Answer):
    """How a session or an auth link stands."""

    id: str
    status: str
    mode: str
    provider: str | None
    account_id: str | None
    was_new: bool | None
    created_at: datetime
    expires_at: datetime
    oauth_error_code: str | None = None
    oauth_error_description: str | None = None
    owner_id: str
    channel: str
    opens_until: datetime | None = None


class UserToken(_Answer):
    """A token with which a browser is one user of one owner; shown by `token.get_secret_value()` only."""

    token: SecretStr
    expires_at: datetime
    expires_in: int | None = None


class Revocation(_Answer):
    """Which user tokens have ended."""

    owner_id: str
    user: str | None
    not_before: datetime


class PushMessage(_Answer):
    """A verified push message. `id` is the same however often it is delivered; `event` is None for a test message."""

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]
    event: Event | None = None


def cursors_set(page: EventPage, after: str) -> list[Event]:
    """Give each change the cursor behind it; the last one's has the digest by which a restored backup is noticed."""
    for event in page.data:
        event._cursor = str(event.position)  # noqa: SLF001  set here and nowhere else
    if page.data:
        page.data[-1]._cursor = page.next_cursor or after  # noqa: SLF001  see above
    return page.data
