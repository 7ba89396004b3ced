"""What lists of invitations may be asked for."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from app.inputs import Query, ShortText
from app.linked_accounts.queries import Cursor, FreshQuery

_LONGEST: Final = 18


def _of_this_list(cursor: str) -> str:
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > _LONGEST:
        message = "not a cursor of this list; leave it out to start anew"
        raise ValueError(message)
    return cursor


class UseQuery(FreshQuery):
    """For whom an account is wanted, and how old what is said of it may be."""

    user: ShortText | None = Field(
        default=None, description="For which user of the owner, as their token names them; theirs go before others'."
    )


class InvitationsQuery(Query):
    """Which invitations of an owner, and where in their list."""

    live: bool = Field(default=False, description="Only invitations that can still be opened.")
    cursor: Annotated[Cursor, AfterValidator(_of_this_list)] | None = Field(
        default=None, description="next_cursor of the page before."
    )
    limit: int = Field(default=50, ge=1, le=200, description="Invitations per page.")
