"""The tables of invitations and of the sessions that they opened."""

import sqlalchemy as sa

from app.db.tables import UtcDateTime, metadata

_ID = sa.String(255)
_ACTOR = sa.String(300)

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True, comment="its code is made from it and kept nowhere"),
    sa.Column("position", sa.BigInteger, nullable=False, comment="in the order in which they were made"),
    sa.Column("owner_id", _ID, nullable=False),
    sa.Column("requested_by", _ACTOR, nullable=False),
    sa.Column("provider", sa.Text),
    sa.Column("account_id", _ID, comment="to re-authenticate"),
    sa.Column("username", _ID, comment="who alone may open it; null: any user of the owner"),
    sa.Column("return_url", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("ended_by", _ACTOR),
    sa.Column("linked_at", UtcDateTime, comment="when a session that it opened linked an account"),
    sa.Column("linked_by", _ACTOR),
    sa.Column("linked_account_id", _ID),
    sa.Index("ix_invitations_owner_id_position", "owner_id", "position"),
    sa.Index("ix_invitations_expires_at", "expires_at"),
)

account_pins = sa.Table(
    "account_pins",
    metadata,
    sa.Column("owner_id", _ID, primary_key=True),
    sa.Column("provider", sa.String(100), primary_key=True, comment="in lower case"),
    sa.Column("username", _ID, primary_key=True, comment="whose choice it is; empty: the whole owner's"),
    sa.Column("account_id", _ID, nullable=False),
    sa.Column("pinned_at", UtcDateTime, nullable=False),
    sa.Column("pinned_by", _ACTOR, nullable=False),
    comment="Which of several accounts of a provider is used.",
)

invitation_openings = sa.Table(
    "invitation_openings",
    metadata,
    sa.Column("session_id", sa.String(64), primary_key=True, comment="the connect session that was opened"),
    sa.Column("invitation_id", sa.String(64), nullable=False),
    sa.Column("owner_id", _ID, nullable=False),
    sa.Column("opened_by", _ACTOR, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Index("ix_invitation_openings_invitation_id", "invitation_id", "opened_at"),
    sa.Index("ix_invitation_openings_owner_id", "owner_id"),
)
