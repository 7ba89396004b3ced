"""The outbox: which changes a destination has still to be told, and how far each has been filled in."""

import sqlalchemy as sa

from app.db.tables import UtcDateTime, metadata

push_destinations = sa.Table(
    "push_destinations",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False, comment="changes of the feed up to it are in the outbox"),
)

push_deliveries = sa.Table(
    "push_deliveries",
    metadata,
    sa.Column("destination", sa.String(64), primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False, comment="of the change in the feed"),
    sa.Column("account_id", sa.String(255), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, comment="pending or dead; taken ones are removed"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("due_at", UtcDateTime, nullable=False),
    sa.Column("claimed_until", UtcDateTime),
    sa.Column("failure", sa.String(64), comment="how the last try ended: a status or a kind of error"),
    # Per account in order: a delivery leaves only when no earlier one of its account is pending.
    sa.Index("ix_push_deliveries_destination_account_id_position", "destination", "account_id", "position"),
    sa.Index("ix_push_deliveries_state_due_at", "state", "due_at"),
)
