"""Accounts of all owners: what must be reconnected, of which provider, changed since when.

Revision: 0007
Follows: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
oldest_compatible = "0003"

_INDEXES = (
    "ix_linked_accounts_updated_at",
    "ix_linked_accounts_provider_status",
    "ix_linked_accounts_needs_reauth_since",
)


def upgrade() -> None:
    """Add the indexes."""
    broken = sa.text("needs_reauth_since IS NOT NULL")
    op.create_index(
        "ix_linked_accounts_needs_reauth_since",
        "linked_accounts",
        ["needs_reauth_since", "account_id"],
        postgresql_where=broken,
        sqlite_where=broken,
    )
    op.create_index("ix_linked_accounts_provider_status", "linked_accounts", ["provider", "status", "account_id"])
    op.create_index("ix_linked_accounts_updated_at", "linked_accounts", ["updated_at"])


def downgrade() -> None:
    """Drop the indexes."""
    for name in _INDEXES:
        op.drop_index(name, "linked_accounts")
