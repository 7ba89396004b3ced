"""The JSON of push destinations and of what they have still to be told."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.linked_accounts.queries import encode_cursor
from app.push.outbox import Backlog, Undelivered


class Destination(BaseModel):
    """How a destination stands."""

    name: str
    pending: int = Field(description="Changes that it has still to be told.")
    dead: int = Field(description="Deliveries that were given up, and wait for a replay.")

    @classmethod
    def of(cls, backlog: Backlog) -> Self:
        """Show a destination."""
        return cls(name=backlog.destination, pending=backlog.pending, dead=backlog.dead)


class DestinationPage(BaseModel):
    """Every destination, in the order of their names; there are at most 20."""

    data: list[Destination]
    next_cursor: None = None

    @classmethod
    def of(cls, found: Sequence[Backlog]) -> Self:
        """Show all."""
        return cls(data=[Destination.of(backlog) for backlog in found])


class DeliveryOut(BaseModel):
    """A delivery that waits, or was given up."""

    position: int = Field(description="Of the change in the feed; its `webhook-id` is evt_ and this.")
    account_id: str
    kind: str | None = Field(description="The kind of the change; null once the feed no longer has it.")
    state: Literal["pending", "dead"]
    attempts: int
    failure: str | None = Field(description="How the last try ended: a status, or a kind of error.")
    due_at: datetime

    @classmethod
    def of(cls, delivery: Undelivered) -> Self:
        """Show a delivery."""
        values = {name: getattr(delivery, name) for name in cls.model_fields}
        return cls.model_validate({**values, "state": delivery.state.value})


class DeliveryPage(BaseModel):
    """A page of deliveries in the order of the feed; `next_cursor` is null on the last one."""

    data: list[DeliveryOut]
    next_cursor: str | None

    @classmethod
    def of(cls, found: Sequence[Undelivered], *, has_more: bool) -> Self:
        """Show a page."""
        cursor = encode_cursor(str(found[-1].position)) if has_more else None
        return cls(data=[DeliveryOut.of(delivery) for delivery in found], next_cursor=cursor)


class Replayed(BaseModel):
    """How many deliveries are tried once more."""

    replayed: int


class Tested(BaseModel):
    """How a test message fared."""

    delivered: bool
    failure: str | None = Field(description="Why it was not: a status, or a kind of error.")
