"""First tables.

Revision: 0001
Follows:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "account_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True, comment="place in the change feed; null: not part of it"),
        sa.Column(
            "digest", sa.LargeBinary(length=32), nullable=True, comment="of a webhook delivery: a repeat is no news"
        ),
        sa.Column("account_id", sa.String(length=255), nullable=False),
        sa.Column("owner_id", sa.String(length=255), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=300), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changes", _JSON, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_events")),
        sa.UniqueConstraint("digest", name=op.f("uq_account_events_digest")),
        sa.UniqueConstraint("position", name=op.f("uq_account_events_position")),
        comment="append-only",
    )
    op.create_index("ix_account_events_account_id_id", "account_events", ["account_id", "id"], unique=False)
    op.create_index("ix_account_events_owner_id_position", "account_events", ["owner_id", "position"], unique=False)
    op.create_table(
        "connect_sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=255), nullable=False),
        sa.Column("requested_by", sa.String(length=300), nullable=False),
        sa.Column("door", sa.String(length=16), nullable=False, comment="browser, service or auth_link"),
        sa.Column("mode", sa.String(length=16), nullable=False, comment="create or edit"),
        sa.Column(
            "status", sa.String(length=16), nullable=False, comment="minting, pending, linked, expired or failed"
        ),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("categories", _JSON, nullable=True),
        sa.Column("account_id", sa.String(length=255), nullable=True, comment="of an edit session"),
        sa.Column("multiple", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("policy_rule", sa.Text(), nullable=True, comment="the rule that allowed it"),
        sa.Column(
            "upstream_id",
            sa.String(length=255),
            nullable=True,
            comment="StackOne's id of the session; its token is never kept",
        ),
        sa.Column("linked_account_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connect_sessions")),
    )
    op.create_index("ix_connect_sessions_expires_at", "connect_sessions", ["expires_at"], unique=False)
    op.create_index(
        "ix_connect_sessions_owner_id_created_at", "connect_sessions", ["owner_id", "created_at"], unique=False
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
        comment="Numbers that only grow: read tickets and feed positions.",
    )
    op.create_table(
        "linked_accounts",
        sa.Column("account_id", sa.String(length=255), nullable=False),
        sa.Column("owner_id", sa.String(length=255), nullable=True),
        sa.Column("owner_name", sa.Text(), nullable=True),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("status_reasons", _JSON, nullable=True),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="StackOne's"),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), nullable=True, comment="StackOne's; a row never moves behind it"
        ),
        sa.Column("needs_reauth_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recovered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "verified_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="last time StackOne confirmed the row; null: only an event spoke of it",
        ),
        sa.Column("read_ticket", sa.BigInteger(), nullable=True, comment="order of the read the row comes from"),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="tombstone; final, since StackOne does not reuse ids",
        ),
        sa.Column(
            "refresh_due_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when to read the account again; null: nothing to do",
        ),
        sa.Column(
            "refresh_marks", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="hints received"
        ),
        sa.Column("refresh_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "claimed_until", sa.DateTime(timezone=True), nullable=True, comment="a process is reading it until then"
        ),
        sa.Column(
            "disconnect_requested_at", sa.DateTime(timezone=True), nullable=True, comment="to be deleted at StackOne"
        ),
        sa.Column("disconnect_requested_by", sa.String(length=300), nullable=True),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_linked_accounts")),
    )
    op.create_index(
        "ix_linked_accounts_owner_id_account_id", "linked_accounts", ["owner_id", "account_id"], unique=False
    )
    op.create_index("ix_linked_accounts_refresh_due_at", "linked_accounts", ["refresh_due_at"], unique=False)
    op.create_table(
        "owners",
        sa.Column("owner_id", sa.String(length=255), nullable=False),
        sa.Column("owner_name", sa.Text(), nullable=False, comment="as first sent to StackOne; later names are not"),
        sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pinned_by", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("pk_owners")),
    )
    op.create_table(
        "service_keys",
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", _JSON, nullable=False),
        sa.Column("owner_ids", _JSON, nullable=True, comment="null: every owner"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True, comment="to the minute"),
        sa.Column("rotated_to", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_service_keys")),
        comment="Credentials of the service door.",
    )


def downgrade() -> None:
    """Undo: first tables."""
    op.drop_table("service_keys")
    op.drop_table("owners")
    op.drop_index("ix_linked_accounts_refresh_due_at", table_name="linked_accounts")
    op.drop_index("ix_linked_accounts_owner_id_account_id", table_name="linked_accounts")
    op.drop_table("linked_accounts")
    op.drop_table("counters")
    op.drop_index("ix_connect_sessions_owner_id_created_at", table_name="connect_sessions")
    op.drop_index("ix_connect_sessions_expires_at", table_name="connect_sessions")
    op.drop_table("connect_sessions")
    op.drop_index("ix_account_events_owner_id_position", table_name="account_events")
    op.drop_index("ix_account_events_account_id_id", table_name="account_events")
    op.drop_table("account_events")
