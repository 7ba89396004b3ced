"""The JSON of linked accounts: one shape everywhere (browser, service, feed)."""

import base64
import binascii
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from app.errors import FieldError, Unprocessable
from app.inputs import storable
from app.linked_accounts.store import LinkedAccount

_LONGEST_CURSOR = 1024


class StatusReasonOut(BaseModel):
    """Why an account has its status, in StackOne's words."""

    code: str | None = None
    description: str | None = None
    timestamp: str | None = None


class LinkedAccountOut(BaseModel):
    """A linked account."""

    account_id: str
    owner_id: str
    owner_name: str | None
    username: str | None = Field(description="The person who linked it.")
    provider: str
    status: str = Field(description="StackOne's status, verbatim: active, inactive, suspended, expired, error, ...")
    usable: bool = Field(description="Whether calls to the provider can work.")
    needs_reauth: bool = Field(description="Whether somebody has to sign in to the provider anew.")
    needs_reauth_since: datetime | None
    recovered_at: datetime | None
    status_reasons: list[StatusReasonOut]
    label: str | None
    type: str | None
    created_at: datetime | None
    updated_at: datetime | None
    verified_at: datetime = Field(description="When StackOne last confirmed all this.")

    @classmethod
    def of(cls, account: LinkedAccount) -> Self:
        """Show a visible account."""
        return cls.model_validate(
            {
                **{name: getattr(account, name) for name in cls.model_fields},
                "status_reasons": list(account.status_reasons or ()),
            }
        )


class LeavingAccountOut(LinkedAccountOut):
    """An account that is to be disconnected as soon as StackOne can be reached."""

    disconnect_requested_at: datetime


class LinkedAccountPage(BaseModel):
    """A page of accounts; `next_cursor` is null on the last one."""

    data: list[LinkedAccountOut]
    next_cursor: str | None


def encode_cursor(last_id: str) -> str:
    """Spell a place in a list; opaque to callers."""
    return base64.urlsafe_b64encode(last_id.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> str:
    """Read a cursor back. Raises Unprocessable for anything that is not one of ours.

    It needs no signature: it names a place in a list that is the caller's own, whatever it says.
    """
    try:
        if len(cursor) > _LONGEST_CURSOR or not cursor.isascii():
            raise ValueError  # noqa: TRY301  one way out for everything that is no cursor
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        return storable(text)
    except (ValueError, binascii.Error):
        raise Unprocessable(
            errors=[FieldError("query.cursor", "not a cursor of this list; leave it out to start anew")]
        ) from None


def page_of(accounts: list[LinkedAccount], limit: int) -> LinkedAccountPage:
    """Make a page out of up to limit + 1 accounts."""
    shown = accounts[:limit]
    more = len(accounts) > limit
    return LinkedAccountPage(
        data=[LinkedAccountOut.of(account) for account in shown],
        next_cursor=encode_cursor(shown[-1].account_id) if more else None,
    )
