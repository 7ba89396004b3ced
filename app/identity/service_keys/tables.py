"""Where service keys are kept: as a keyed hash, never as the key."""

import sqlalchemy as sa

from app.db.tables import Json, UtcDateTime, metadata

service_keys = sa.Table(
    "service_keys",
    metadata,
    sa.Column("key_id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("owner_ids", Json, comment="null: every owner"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime, comment="to the minute"),
    sa.Column("rotated_to", sa.String(16)),
    comment="Credentials of the service door.",
)
