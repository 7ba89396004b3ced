"""What lists of linked accounts and of their changes may be asked for. A new filter is a field here and a `where`."""

import base64
import binascii
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from app.inputs import ProviderKey, Query, ShortText, storable

_LAST_POSITION: Final = 2**63 - 1


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


class EventsQuery(Query):
    """Where in the change feed, and how long to wait for more of it."""

    after: int = Field(default=0, ge=0, le=_LAST_POSITION, description="next_cursor of the answer before; 0: all.")
    limit: int = Field(default=100, ge=1, le=500, description="Changes per answer.")
    wait: float = Field(default=0, ge=0, le=30, description="Seconds to wait for a first change.")
