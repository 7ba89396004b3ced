"""The tables of connect sessions and of owners' pinned names."""

import sqlalchemy as sa

from app.db.tables import Json, UtcDateTime, metadata

_ID = sa.String(255)
# A kind and a subject, "user:<sub>": longer than the subject alone may be.
_ACTOR = sa.String(300)

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
    sa.Column("door", sa.String(16), nullable=False, key="channel", comment="browser, service or auth_link"),
    sa.Column("mode", sa.String(16), nullable=False, comment="create or edit"),
    sa.Column("status", sa.String(16), nullable=False, comment="minting, pending, linked, expired or failed"),
    sa.Column("provider", sa.Text),
    sa.Column("categories", Json),
    sa.Column("account_id", _ID, comment="of an edit session"),
    sa.Column("multiple", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("policy_rule", sa.Text, comment="the rule that allowed it"),
    sa.Column("upstream_id", _ID, comment="StackOne's id of the session; its token is never kept"),
    sa.Column("linked_account_id", _ID),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("resolved_at", UtcDateTime),
    sa.Index("ix_connect_sessions_owner_id_created_at", "owner_id", "created_at"),
    sa.Index("ix_connect_sessions_expires_at", "expires_at"),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True, comment="stands in for the owner once it is erased"),
    sa.Column("owner_id", _ID, unique=True, comment="null once the erasure is complete"),
    sa.Column("state", sa.String(16), nullable=False, comment="pending or complete"),
    sa.Column("requested_by", _ACTOR, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("completed_at", UtcDateTime),
    sa.Column("accounts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("sessions", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("events", sa.Integer, nullable=False, server_default=sa.text("0")),
    comment="Receipts of owners that were erased.",
)
