"""What lists of linked accounts and of their changes may be asked for. A new filter is a field here and a `where`."""

import base64
import binascii
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from app.inputs import AccountIdText, OwnerId, ProviderKey, Query, ShortText, storable
from app.linked_accounts.changes import FEED_KINDS

_LAST_POSITION: Final = 2**63 - 1
_DIGEST_LENGTH: Final = 16


def encode_cursor(last_id: str) -> str:
    """Spell a place in a list; opaque to callers."""
    return base64.urlsafe_b64encode(last_id.encode()).rstrip(b"=").decode()


def _decode_cursor(cursor: str) -> str:
    """Read a cursor back. Unsigned: whatever it says, it names a place in a list that is the caller's own."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        return storable(text)
    except (ValueError, binascii.Error):
        message = "not a cursor of this list; leave it out to start anew"
        raise ValueError(message) from None


Cursor = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_decode_cursor)]


class AccountsQuery(Query):
    """Which linked accounts of an owner, and where in their list."""

    provider: list[ProviderKey] = Field(default=[], max_length=50, description="Only these providers.")
    status: list[ShortText] = Field(default=[], max_length=20, description="Only these statuses.")
    cursor: Cursor | None = Field(default=None, description="next_cursor of the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="Accounts per page.")


class AllAccountsQuery(Query):
    """Which linked accounts of all owners that a service may see, and where in their list."""

    owner_id: list[OwnerId] = Field(default=[], max_length=50, description="Only these owners'.")
    account_id: list[AccountIdText] = Field(default=[], max_length=200, description="Only these accounts.")
    provider: list[ProviderKey] = Field(default=[], max_length=50, description="Only these providers.")
    status: list[ShortText] = Field(default=[], max_length=20, description="Only these statuses.")
    needs_reauth: bool | None = Field(
        default=None, description="Only accounts that somebody has to sign in for anew, the longest broken first."
    )
    usable: bool | None = Field(default=None, description="Only accounts with which calls to the provider can work.")
    updated_since: AwareDatetime | None = Field(default=None, description="Only what changed at StackOne since then.")
    snapshot: bool = Field(
        default=False,
        description="Answer with `feed_position`: reading all pages, and then the feed from there, misses nothing.",
    )
    cursor: Cursor | None = Field(default=None, description="next_cursor of the page before, with the same filters.")
    limit: int = Field(default=50, ge=1, le=200, description="Accounts per page.")

    @model_validator(mode="after")
    def _whole_snapshot(self) -> Self:
        if self.snapshot and self.needs_reauth:
            message = "a snapshot goes through accounts by id; leave needs_reauth out"
            raise ValueError(message)
        return self


class FreshQuery(Query):
    """How old the answer about one account may be."""

    max_age: int | None = Field(
        default=None,
        ge=0,
        le=2_592_000,
        description="Seconds since StackOne confirmed it; where that is longer ago, StackOne is asked first.",
    )
    must_be_fresh: bool = Field(
        default=False, description="503 instead of an older answer (`stale: true`) while StackOne is away."
    )


def _feed_position(text: str) -> str:
    """Check a place in the feed: a number, and after a dot the digest of the change that stands there."""
    number, _, digest = text.partition(".")
    if not number.isascii() or not number.isdecimal() or int(number) > _LAST_POSITION or len(digest) > _DIGEST_LENGTH:
        message = "not a position of the feed: 0, or a next_cursor"
        raise ValueError(message)
    return text


FeedPosition = Annotated[str, StringConstraints(max_length=64), AfterValidator(_feed_position)]


def _feed_kind(kind: str) -> str:
    """Refuse what no change is: a reader who misspells a kind would wait for ever."""
    if kind not in FEED_KINDS:
        message = f"not a kind of change; they are {', '.join(FEED_KINDS)}"
        raise ValueError(message)
    return kind


FeedKind = Annotated[str, AfterValidator(_feed_kind), Field(json_schema_extra={"enum": list(FEED_KINDS)})]


class EventsQuery(Query):
    """Where in the change feed, what of it, and how long to wait for more of it."""

    after: FeedPosition = Field(default="0", description="next_cursor of the answer before; 0: all.")
    kind: list[FeedKind] = Field(default=[], max_length=20, description="Only changes of these kinds.")
    owner_id: list[OwnerId] = Field(default=[], max_length=50, description="Only these owners' changes.")
    limit: int = Field(default=100, ge=1, le=500, description="Changes per answer.")
    wait: float = Field(default=0, ge=0, le=30, description="Seconds to wait for a first change.")

    @property
    def position(self) -> int:
        """The number in `after`."""
        return int(self.after.partition(".")[0])


class AccountEventsQuery(Query):
    """Which changes of one account."""

    after: FeedPosition = Field(default="0", description="next_cursor of the answer before; 0: all.")
    limit: int = Field(default=100, ge=1, le=500, description="Changes per answer.")
