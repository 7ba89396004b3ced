"""The table of audit entries."""

import sqlalchemy as sa

from app.db.tables import Json, UtcDateTime, metadata

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(300), nullable=False),
    sa.Column("owner_id", sa.String(255), comment="an erased owner's place is taken by its receipt's id"),
    sa.Column("subject", sa.String(255), comment="id of what it was done to: an account, a session, a token"),
    sa.Column("details", Json, comment="never a secret; null once the owner is erased"),
    sa.Index("ix_audit_entries_owner_id_at", "owner_id", "at"),
    sa.Index("ix_audit_entries_at", "at"),
    comment="Append-only: what somebody did, or was refused, of which no other row tells.",
)
