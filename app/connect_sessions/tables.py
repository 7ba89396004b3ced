"""The tables of connect sessions and of owners' pinned names."""

from enum import Enum

import sqlalchemy as sa

from app.db.tables import EnumText, Json, UtcDateTime, metadata
from app.policy.rules import Channel

_ID = sa.String(255)
# A kind and a subject, "user:<sub>": longer than the subject alone may be.
_ACTOR = sa.String(300)


class Mode(Enum):
    """What a session does: link a new account, or re-authenticate one that exists."""

    CREATE = "create"
    EDIT = "edit"


class Status(Enum):
    """How a session stands. `MINTING` is shown as pending: StackOne has not answered yet.

    UNKNOWN is a session that may have linked an account, although nothing says that it was this one. ENDED is one that
    was ended before it linked any. Releases before 0.2.0 know neither, so both are kept in a column of their own.
    """

    MINTING = "minting"
    PENDING = "pending"
    LINKED = "linked"
    EXPIRED = "expired"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ENDED = "ended"


owners = sa.Table(
    "owners",
    metadata,
    sa.Column("owner_id", _ID, primary_key=True),
    sa.Column("owner_name", sa.Text, nullable=False, comment="as first sent to StackOne; later names are not"),
    sa.Column("pinned_at", UtcDateTime, nullable=False),
    sa.Column("pinned_by", _ACTOR, nullable=False),
)

connect_sessions = sa.Table(
    "connect_sessions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner_id", _ID, nullable=False),
    sa.Column("requested_by", _ACTOR, nullable=False),
    sa.Column("door", EnumText(Channel, 16), nullable=False, key="channel", comment="browser, service or auth_link"),
    sa.Column("mode", EnumText(Mode, 16), nullable=False, comment="create or edit"),
    sa.Column("status", EnumText(Status, 16), nullable=False, comment="minting, pending, linked, expired or failed"),
    sa.Column("provider", sa.Text),
    sa.Column("categories", Json),
    sa.Column("account_id", _ID, comment="of an edit session"),
    sa.Column("multiple", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("policy_rule", sa.Text, comment="the rule that allowed it"),
    sa.Column("upstream_id", _ID, comment="StackOne's id of the session; its token is never kept"),
    sa.Column("linked_account_id", _ID),
    sa.Column("ended_as", EnumText(Status, 16), comment="unknown or ended, which older releases cannot read in status"),
    sa.Column("was_new", sa.Boolean, comment="whether the linked account was made or edited"),
    sa.Column("oauth_error_code", sa.String(255), comment="of the last OAuth attempt, as StackOne tells it"),
    sa.Column("oauth_error_description", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("resolved_at", UtcDateTime),
    sa.Index("ix_connect_sessions_owner_id_created_at", "owner_id", "created_at"),
    sa.Index("ix_connect_sessions_expires_at", "expires_at"),
)
