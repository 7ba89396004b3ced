"""How sessions end: unknown or ended, with a new account or an edited one, or with OAuth's error; who confirmed what.

Revision: 0005
Follows: 0004
"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import UtcDateTime

revision = "0005"
down_revision = "0004"
# Code of 0003 and 0004 leaves the columns empty. It shows a session that ended as `unknown` or `ended` as expired.
oldest_compatible = "0003"


def upgrade() -> None:
    """Add the columns."""
    op.add_column(
        "connect_sessions",
        sa.Column(
            "ended_as",
            sa.String(16),
            nullable=True,
            comment="unknown or ended, which older releases cannot read in status",
        ),
    )
    op.add_column(
        "connect_sessions",
        sa.Column("was_new", sa.Boolean(), nullable=True, comment="whether the linked account was made or edited"),
    )
    op.add_column(
        "connect_sessions",
        sa.Column(
            "oauth_error_code",
            sa.String(255),
            nullable=True,
            comment="of the last OAuth attempt, as StackOne tells it",
        ),
    )
    op.add_column("connect_sessions", sa.Column("oauth_error_description", sa.Text(), nullable=True))
    op.add_column(
        "linked_accounts",
        sa.Column(
            "confirmed_at",
            UtcDateTime(),
            nullable=True,
            comment="when a user last said to have linked it, and a read agreed",
        ),
    )
    op.add_column("linked_accounts", sa.Column("confirmed_by", sa.String(300), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    for column in ("confirmed_by", "confirmed_at"):
        op.drop_column("linked_accounts", column)
    for column in ("oauth_error_description", "oauth_error_code", "was_new", "ended_as"):
        op.drop_column("connect_sessions", column)
