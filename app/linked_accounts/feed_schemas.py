"""The JSON of the change feed; pushed changes have the same shape."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.linked_accounts.feed import Entry
from app.linked_accounts.schemas import LinkedAccountOut


class EventOut(BaseModel):
    """One change."""

    position: int = Field(description="Its place in the feed; grows, without repeats.")
    kind: str = Field(description="account.linked, .updated, .needs_reauth, .recovered, .owner_changed, ...")
    account_id: str
    owner_id: str | None
    provider: str | None
    at: datetime
    source: str = Field(description="What made the broker look or act: webhook, confirm, refresh, sweep, disconnect.")
    actor: str = Field(description="Who caused it: user:<subject>, service:<key id> or stackone.")
    changes: dict[str, Any] | None = Field(description="What changed, as {field: {from, to}}, where fields did.")
    account: LinkedAccountOut | None = Field(description="The account as it is now; null once it is gone or moved.")

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """Show an entry of the feed."""
        values = {name: getattr(entry, name) for name in cls.model_fields if name != "account"}
        account = LinkedAccountOut.of(entry.account) if entry.account is not None else None
        return cls.model_validate({**values, "account": account})


class EventPage(BaseModel):
    """The next changes. `next_cursor` is never null: the feed has no end."""

    data: list[EventOut]
    next_cursor: str = Field(description="Give it as `after` to go on from here.")

    @classmethod
    def of(cls, entries: Sequence[Entry], *, after: int) -> Self:
        """Show what came behind a position."""
        last = entries[-1].position if entries else after
        return cls(data=[EventOut.of(entry) for entry in entries], next_cursor=str(last))
