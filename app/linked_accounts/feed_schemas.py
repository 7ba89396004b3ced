"""The JSON of the change feed; pushed changes have the same shape."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.identity.invitation_codes import link, repair_id
from app.linked_accounts.changes import FEED_KINDS, Kind, Source
from app.linked_accounts.feed import Entry, digest_of
from app.linked_accounts.schemas import LinkedAccountOut, StatusReasonOut
from app.linked_accounts.store import LinkedAccount
from app.settings import InvitationSettings


class RepairOut(BaseModel):
    """How a broken account comes to work again. Null once it does."""

    url: str | None = Field(
        description="An invitation for whoever linked it, valid as long as the account is broken; it opens nothing for"
        " anybody else. Null where the broker has no page for invitations."
    )
    username: str | None = Field(alias="for", description="Who linked it, and may repair it.")
    provider: str
    label: str | None
    since: datetime
    reasons: list[StatusReasonOut]

    @classmethod
    def of(cls, account: LinkedAccount, settings: InvitationSettings) -> Self | None:
        """Show how a visible account is repaired; None if it needs no repair."""
        if account.needs_reauth_since is None or account.leaving:
            return None
        return cls.model_validate(
            {
                "url": link(settings, repair_id(account.account_id, account.needs_reauth_since)),
                "for": account.username,
                "provider": account.provider,
                "label": account.label,
                "since": account.needs_reauth_since,
                "reasons": list(account.status_reasons or ()),
            }
        )


class EventOut(BaseModel):
    """One change."""

    position: int = Field(description="Its place in the feed; grows, without repeats.")
    kind: str = Field(
        description="What happened.",
        json_schema_extra={"enum": list(FEED_KINDS)},
    )
    account_id: str
    owner_id: str | None
    provider: str | None
    at: datetime
    source: str = Field(
        description="What made the broker look or act.", json_schema_extra={"enum": [source.value for source in Source]}
    )
    actor: str = Field(description="Who caused it: user:<subject>, service:<key id> or stackone.")
    changes: dict[str, Any] | None = Field(description="What changed, as {field: {from, to}}, where fields did.")
    account: LinkedAccountOut | None = Field(description="The account as it is now; null once it is gone or moved.")
    repair: RepairOut | None = Field(
        default=None, description="Of account.needs_reauth and account.still_broken: what to do, while it is broken."
    )

    @classmethod
    def of(cls, entry: Entry, settings: InvitationSettings) -> Self:
        """Show an entry of the feed."""
        values = {name: getattr(entry, name) for name in cls.model_fields if name not in {"account", "repair"}}
        account = LinkedAccountOut.of(entry.account) if entry.account is not None else None
        is_broken = entry.kind in _BROKEN and entry.account is not None
        repair = RepairOut.of(entry.account, settings) if is_broken and entry.account is not None else None
        return cls.model_validate({**values, "account": account, "repair": repair})


_BROKEN = {Kind.NEEDS_REAUTH.value, Kind.STILL_BROKEN.value}


class EventPage(BaseModel):
    """The next changes. `next_cursor` is never null: the feed has no end."""

    data: list[EventOut]
    next_cursor: str = Field(description="Give it as `after` to go on from here.")
    head: str = Field(description="The newest position: how far behind a reader is.")

    @classmethod
    def of(cls, entries: Sequence[Entry], head: int, *, after: str, settings: InvitationSettings) -> Self:
        """Show what came behind a position."""
        last = f"{entries[-1].position}.{digest_of(entries[-1])}" if entries else after
        return cls(data=[EventOut.of(entry, settings) for entry in entries], next_cursor=last, head=str(head))
