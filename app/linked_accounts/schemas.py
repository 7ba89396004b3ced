"""The JSON of linked accounts: one shape everywhere (browser, service, feed)."""

from datetime import datetime
from operator import attrgetter
from typing import Any, Final, Self

from pydantic import BaseModel, Field

from app.linked_accounts.of_owners import AccountsOfOwners
from app.linked_accounts.queries import encode_cursor
from app.linked_accounts.store import LinkedAccount, Page


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
    leaving: bool = Field(description="Whether it is being disconnected: nothing to use or to reconnect any more.")
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
        return cls.model_validate(_shown(account))


class LeavingAccountOut(LinkedAccountOut):
    """An account that is to be disconnected as soon as StackOne can be reached."""

    disconnect_requested_at: datetime


_NAMES: Final = tuple(LeavingAccountOut.model_fields)
_values: Final = attrgetter(*_NAMES)


def _shown(account: LinkedAccount) -> dict[str, Any]:
    """Return all that any of these shapes shows; each takes what it has a field for."""
    shown = dict(zip(_NAMES, _values(account), strict=True))
    shown["status_reasons"] = shown["status_reasons"] or []
    return shown


class LinkedAccountPage(BaseModel):
    """A page of accounts; `next_cursor` is null on the last one."""

    data: list[LinkedAccountOut]
    next_cursor: str | None

    @classmethod
    def of(cls, page: Page) -> Self:
        """Show a page."""
        return cls(
            data=[LinkedAccountOut.of(account) for account in page.accounts],
            next_cursor=encode_cursor(page.accounts[-1].account_id) if page.has_more else None,
        )


class FreshAccountOut(LinkedAccountOut):
    """An account as it is now, or as it was last seen."""

    stale: bool = Field(default=False, description="Whether it is older than was asked for: StackOne is away.")

    @classmethod
    def of_read(cls, account: LinkedAccount, *, is_stale: bool) -> Self:
        """Show a visible account, and whether it is older than was asked for."""
        return cls.model_validate({**_shown(account), "stale": is_stale})


class AccountPage(BaseModel):
    """A page of accounts of all owners; `next_cursor` is null on the last one."""

    data: list[LinkedAccountOut]
    next_cursor: str | None
    feed_position: str | None = Field(
        description="Of a snapshot: give it as `after` to GET /v1/events once the last page is read."
    )

    @classmethod
    def of(cls, page: AccountsOfOwners) -> Self:
        """Show a page."""
        return cls(
            data=[LinkedAccountOut.of(account) for account in page.accounts],
            next_cursor=page.next_cursor,
            feed_position=page.feed_position,
        )
