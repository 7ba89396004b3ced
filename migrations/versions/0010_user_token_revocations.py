"""Revocations of user tokens.

Revision: 0010
Follows: 0009
"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import UtcDateTime

revision = "0010"
down_revision = "0009"
# Older code makes no user tokens, and accepts none.
oldest_compatible = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "user_token_revocations",
        sa.Column(
            "subject",
            sa.String(length=64),
            nullable=False,
            comment="digest of the owner's id and, for one user, its name",
        ),
        sa.Column(
            "number", sa.BigInteger(), nullable=False, comment="tokens made before the revocation of this number end"
        ),
        sa.Column("not_before", UtcDateTime(), nullable=False),
        sa.Column("revoked_by", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_user_token_revocations")),
        comment="Kept for as long as a token from before may live.",
    )
    op.create_index("ix_user_token_revocations_number", "user_token_revocations", ["number"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("user_token_revocations")
