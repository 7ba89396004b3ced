"""What lists of deliveries may be asked for."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from app.inputs import Query
from app.linked_accounts.queries import Cursor
from app.push.outbox import DeliveryState

_LONGEST: Final = 18


def _of_this_list(cursor: str) -> str:
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > _LONGEST:
        message = "not a cursor of this list; leave it out to start anew"
        raise ValueError(message)
    return cursor


class DeliveriesQuery(Query):
    """Which deliveries of a destination, and where in their list."""

    state: DeliveryState | None = Field(default=None, description="Only those that wait, or only those given up.")
    cursor: Annotated[Cursor, AfterValidator(_of_this_list)] | None = Field(
        default=None, description="next_cursor of the page before."
    )
    limit: int = Field(default=50, ge=1, le=200, description="Deliveries per page.")
