"""The table of erasures."""

from enum import Enum

import sqlalchemy as sa

from app.db.tables import EnumText, UtcDateTime, metadata


class ErasureState(Enum):
    """How far an erasure is."""

    PENDING = "pending"
    COMPLETE = "complete"


erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True, comment="stands in for the owner once it is erased"),
    sa.Column("owner_id", sa.String(255), unique=True, comment="null once the erasure is complete"),
    sa.Column(
        "owner_digest", sa.LargeBinary(32), comment="keyed, of the erased owner's id: tells its accounts from others'"
    ),
    sa.Column("state", EnumText(ErasureState, 16), nullable=False, comment="pending or complete"),
    sa.Column("requested_by", sa.String(300), nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("completed_at", UtcDateTime),
    sa.Column("accounts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("sessions", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("events", sa.Integer, nullable=False, server_default=sa.text("0")),
    comment="Receipts of owners that were erased.",
)
