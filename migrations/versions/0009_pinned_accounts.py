"""Pinned accounts: which of several accounts of a provider is used.

Revision: 0009
Follows: 0008
"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import UtcDateTime

revision = "0009"
down_revision = "0008"
# Older code pins none.
oldest_compatible = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "account_pins",
        sa.Column("owner_id", sa.String(length=255), nullable=False),
        sa.Column("provider", sa.String(length=100), nullable=False, comment="in lower case"),
        sa.Column(
            "username", sa.String(length=255), nullable=False, comment="whose choice it is; empty: the whole owner's"
        ),
        sa.Column("account_id", sa.String(length=255), nullable=False),
        sa.Column("pinned_at", UtcDateTime(), nullable=False),
        sa.Column("pinned_by", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "provider", "username", name=op.f("pk_account_pins")),
        comment="Which of several accounts of a provider is used.",
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("account_pins")
