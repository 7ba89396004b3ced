"""What lists of sessions may be asked for."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from app.connect_sessions.ledger import Session
from app.inputs import Query
from app.linked_accounts.queries import Cursor, encode_cursor
from app.policy.rules import Channel


def cursor_at(session: Session) -> str:
    """Spell the place of a session in a list."""
    return encode_cursor(f"{session.created_at.isoformat()}|{session.id}")


def place(cursor: str) -> tuple[datetime, str]:
    """Return the moment and the id that a cursor stands for. Raises ValueError."""
    moment, _, session_id = cursor.partition("|")
    try:
        created_at = datetime.fromisoformat(moment)
    except ValueError:
        created_at = None
    if created_at is None or created_at.tzinfo is None or not session_id:
        message = "not a cursor of this list; leave it out to start anew"
        raise ValueError(message)
    return created_at, session_id


def _of_this_list(cursor: str) -> str:
    place(cursor)
    return cursor


class SessionsQuery(Query):
    """Which sessions of an owner, and where in their list."""

    channel: Channel | None = Field(default=None, description="Only sessions that were opened through this channel.")
    live: bool = Field(default=False, description="Only sessions that can still link an account.")
    cursor: Annotated[Cursor, AfterValidator(_of_this_list)] | None = Field(
        default=None, description="next_cursor of the page before."
    )
    limit: int = Field(default=50, ge=1, le=200, description="Sessions per page.")


class ConnectorsQuery(Query):
    """Where in the list of connectors."""

    cursor: Cursor | None = Field(default=None, description="next_cursor of the page before.")
    limit: int = Field(default=200, ge=1, le=200, description="Connectors per page.")
