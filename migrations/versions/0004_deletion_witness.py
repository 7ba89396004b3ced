"""Removing an account takes two witnesses, and what an erasure has cleared is told from other tombstones.

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
# Code of 0003 knows nothing of the columns and leaves them empty: its tombstones have no witness.
oldest_compatible = "0003"

_OLD_COMMENT = "tombstone; final, since StackOne does not reuse ids"
_NEW_COMMENT = "tombstone; only a later read that shows the account ends it"


def upgrade() -> None:
    """Add the columns, and find the tombstones that erasures have cleared."""
    op.add_column(
        "erasures",
        sa.Column(
            "owner_digest",
            sa.LargeBinary(32),
            nullable=True,
            comment="keyed, of the erased owner's id: tells its accounts from others'",
        ),
    )
    op.add_column(
        "linked_accounts",
        sa.Column(
            "gone_since", UtcDateTime(), nullable=True, comment="since when reads say that there is no such account"
        ),
    )
    op.add_column(
        "linked_accounts",
        sa.Column(
            "deletion_witness",
            sa.String(16),
            nullable=True,
            comment="what else says so: event, listing, deletion or an earlier read",
        ),
    )
    op.add_column(
        "linked_accounts",
        sa.Column(
            "erasure_id",
            sa.String(64),
            nullable=True,
            comment="of the erasure that cleared the tombstone: it is never revived",
        ),
    )
    op.create_index(
        "ix_linked_accounts_gone_since",
        "linked_accounts",
        ["gone_since"],
        postgresql_where=sa.text("gone_since IS NOT NULL"),
        sqlite_where=sa.text("gone_since IS NOT NULL"),
    )
    op.execute(
        "UPDATE linked_accounts SET erasure_id = owner_id"
        " WHERE deleted_at IS NOT NULL AND owner_id IN (SELECT id FROM erasures)"
    )
    _comment(_NEW_COMMENT, _OLD_COMMENT)


def downgrade() -> None:
    """Drop the columns."""
    _comment(_OLD_COMMENT, _NEW_COMMENT)
    op.drop_index("ix_linked_accounts_gone_since", "linked_accounts")
    for column in ("erasure_id", "deletion_witness", "gone_since"):
        op.drop_column("linked_accounts", column)
    op.drop_column("erasures", "owner_digest")


def _comment(new: str, old: str) -> None:
    # SQLite has no comments, and would copy the whole table.
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("linked_accounts", "deleted_at", existing_type=UtcDateTime(), comment=new, existing_comment=old)
