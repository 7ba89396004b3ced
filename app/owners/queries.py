"""What the list of owners may be asked for."""

from pydantic import Field

from app.inputs import Query, ShortText
from app.linked_accounts.queries import Cursor


class OwnersQuery(Query):
    """Where in the list of owners."""

    cursor: Cursor | None = Field(default=None, description="next_cursor of the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="Owners per page.")


class RevocationQuery(Query):
    """Whose user tokens end."""

    user: ShortText | None = Field(default=None, description="Only this user's; without it those of all users.")
