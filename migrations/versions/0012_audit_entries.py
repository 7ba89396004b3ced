"""Audit entries: refusals, user tokens and pins, which no other row tells of.

Revision: 0012
Follows: 0011
"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import Json, UtcDateTime

revision = "0012"
down_revision = "0011"
# Older code writes no audit entries, and reads none.
oldest_compatible = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=300), nullable=False),
        sa.Column(
            "owner_id",
            sa.String(length=255),
            nullable=True,
            comment="an erased owner's place is taken by its receipt's id",
        ),
        sa.Column(
            "subject",
            sa.String(length=255),
            nullable=True,
            comment="id of what it was done to: an account, a session, a token",
        ),
        sa.Column("details", Json, nullable=True, comment="never a secret; null once the owner is erased"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
        comment="Append-only: what somebody did, or was refused, of which no other row tells.",
    )
    op.create_index("ix_audit_entries_owner_id_at", "audit_entries", ["owner_id", "at"])
    op.create_index("ix_audit_entries_at", "audit_entries", ["at"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("audit_entries")
