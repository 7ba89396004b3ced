"""Invitations, and the sessions that they opened.

Revision: 0008
Follows: 0007
"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import UtcDateTime

revision = "0008"
down_revision = "0007"
# Older code makes no invitations, and leaves those of an owner that it erases to a later round.
oldest_compatible = "0003"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "invitation_openings",
        sa.Column("session_id", sa.String(length=64), nullable=False, comment="the connect session that was opened"),
        sa.Column("invitation_id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=255), nullable=False),
        sa.Column("opened_by", sa.String(length=300), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_invitation_openings")),
    )
    op.create_index("ix_invitation_openings_invitation_id", "invitation_openings", ["invitation_id", "opened_at"])
    op.create_index("ix_invitation_openings_owner_id", "invitation_openings", ["owner_id"])
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(length=64), nullable=False, comment="its code is made from it and kept nowhere"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="in the order in which they were made"),
        sa.Column("owner_id", sa.String(length=255), nullable=False),
        sa.Column("requested_by", sa.String(length=300), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("account_id", sa.String(length=255), nullable=True, comment="to re-authenticate"),
        sa.Column(
            "username",
            sa.String(length=255),
            nullable=True,
            comment="who alone may open it; null: any user of the owner",
        ),
        sa.Column("return_url", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("ended_by", sa.String(length=300), nullable=True),
        sa.Column(
            "linked_at",
            UtcDateTime(),
            nullable=True,
            comment="when a session that it opened linked an account",
        ),
        sa.Column("linked_by", sa.String(length=300), nullable=True),
        sa.Column("linked_account_id", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
    )
    op.create_index("ix_invitations_expires_at", "invitations", ["expires_at"])
    op.create_index("ix_invitations_owner_id_position", "invitations", ["owner_id", "position"])


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("invitations")
    op.drop_table("invitation_openings")
