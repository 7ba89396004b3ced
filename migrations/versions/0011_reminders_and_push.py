"""When to remind of a broken account; what a delivery is of, and which tests were sent.

Revision: 0011
Follows: 0010
"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import UtcDateTime

revision = "0011"
down_revision = "0010"
# Older code reminds of nothing, and delivers in its own form.
oldest_compatible = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "linked_accounts",
        sa.Column(
            "remind_at",
            UtcDateTime(),
            nullable=True,
            comment="when to tell once more that it is broken; null: not worked out yet",
        ),
    )


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("linked_accounts", "remind_at")
