"""Leases, sweeps, erasures and the push outbox.

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create what sweeping, erasing and pushing need."""
    op.add_column(
        "linked_accounts", sa.Column("swept_in", sa.BigInteger(), nullable=True, comment="last sweep that listed it")
    )
    # Old hints are thrown away by age; changes, which have a position, are kept.
    op.create_index(
        "ix_account_events_hints_at",
        "account_events",
        ["at"],
        unique=False,
        postgresql_where=sa.text("position IS NULL"),
        sqlite_where=sa.text("position IS NULL"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False, comment="raised with each new holder"),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False, comment="by the database's clock; 0: given back"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        comment="Who does what only one replica may do.",
    )
    _create_sweeps()
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(length=64), nullable=False, comment="stands in for the owner once it is erased"),
        sa.Column("owner_id", sa.String(length=255), nullable=True, comment="null once the erasure is complete"),
        sa.Column("state", sa.String(length=16), nullable=False, comment="pending or complete"),
        sa.Column("requested_by", sa.String(length=300), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("accounts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sessions", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("events", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
        sa.UniqueConstraint("owner_id", name=op.f("uq_erasures_owner_id")),
        comment="Receipts of owners that were erased.",
    )
    op.create_table(
        "push_destinations",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), nullable=False, comment="changes of the feed up to it are in the outbox"
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_push_destinations")),
    )
    op.create_table(
        "push_deliveries",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), autoincrement=False, nullable=False, comment="of the change in the feed"
        ),
        sa.Column("account_id", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="pending or dead; taken ones are removed"),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "failure",
            sa.String(length=64),
            nullable=True,
            comment="how the last try ended: a status or a kind of error",
        ),
        sa.PrimaryKeyConstraint("destination", "position", name=op.f("pk_push_deliveries")),
    )
    op.create_index(
        "ix_push_deliveries_destination_account_id_position",
        "push_deliveries",
        ["destination", "account_id", "position"],
        unique=False,
    )
    op.create_index("ix_push_deliveries_state_due_at", "push_deliveries", ["state", "due_at"], unique=False)


def _create_sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="requested, running, done, stopped or failed"),
        sa.Column("requested_by", sa.String(length=300), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_removal_percent", sa.Float(), nullable=True, comment="overrides the setting"),
        sa.Column(
            "start_ticket", sa.BigInteger(), nullable=True, comment="rows read before it and not listed are suspects"
        ),
        sa.Column(
            "next_page", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="where a crash resumes"
        ),
        sa.Column(
            "complete", sa.Boolean(), nullable=True, comment="whether the listing came to its end; null: not there yet"
        ),
        sa.Column(
            "last_suspect", sa.String(length=255), nullable=True, comment="suspects up to this id have been read"
        ),
        sa.Column("listed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("added", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("changed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("removed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("suspects", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="why it stopped or failed, and what to do"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.create_index("ix_sweeps_state", "sweeps", ["state"], unique=False)


def downgrade() -> None:
    """Undo: leases, sweeps, erasures and the push outbox."""
    op.drop_index("ix_push_deliveries_state_due_at", table_name="push_deliveries")
    op.drop_index("ix_push_deliveries_destination_account_id_position", table_name="push_deliveries")
    op.drop_table("push_deliveries")
    op.drop_table("push_destinations")
    op.drop_table("erasures")
    op.drop_index("ix_sweeps_state", table_name="sweeps")
    op.drop_table("sweeps")
    op.drop_table("leases")
    op.drop_index("ix_account_events_hints_at", table_name="account_events")
    with op.batch_alter_table("linked_accounts") as batch:
        batch.drop_column("swept_in")
