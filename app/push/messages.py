"""What is posted, as Standard Webhooks wants it: a type, a timestamp and data."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from app.linked_accounts.changes import FEED_KINDS
from app.linked_accounts.feed import Entry
from app.linked_accounts.feed_schemas import EventOut
from app.push.plan import belongs_to
from app.settings import InvitationSettings


class ChangeMessage(BaseModel):
    """One change of an account, as the feed has it."""

    type: str = Field(
        description="The kind of the change.",
        json_schema_extra={"enum": list(FEED_KINDS)},
    )
    timestamp: datetime = Field(description="When it was noticed.")
    data: EventOut

    @classmethod
    def of(cls, entries: Sequence[Entry], position: int, settings: InvitationSettings) -> Self:
        """Show the change at a position; which fields changed may stand in the entry before it."""
        entry = next(entry for entry in entries if entry.position == position)
        shown = EventOut.of(entry, settings)
        for other in entries:
            if other is not entry and belongs_to(other, entry):
                shown.changes = other.changes
        return cls(type=entry.kind, timestamp=entry.at, data=shown)


class Ping(BaseModel):
    """What a test message says."""

    destination: str


class PingMessage(BaseModel):
    """A message that somebody has sent to see whether it arrives."""

    type: str = Field(default="test", pattern="^test$")
    timestamp: datetime
    data: Ping

    @classmethod
    def at(cls, now: datetime, destination: str) -> Self:
        """Make one."""
        return cls(timestamp=now, data=Ping(destination=destination))
