"""The database says which versions of the code may still serve on its schema."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
# Code of 0002 compares revisions for equality: it keeps serving requests, but calls itself unready.
oldest_compatible = "0002"


def upgrade() -> None:
    """Create the table; env.py writes its row after each migration."""
    op.create_table(
        "schema_compatibility",
        sa.Column("oldest_compatible_revision", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("oldest_compatible_revision", name=op.f("pk_schema_compatibility")),
        comment="One row: the oldest revision whose code still works on this schema.",
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("schema_compatibility")
