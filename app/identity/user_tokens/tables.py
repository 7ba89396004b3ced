"""The table of revocations."""

import sqlalchemy as sa

from app.db.tables import UtcDateTime, metadata

user_token_revocations = sa.Table(
    "user_token_revocations",
    metadata,
    sa.Column(
        "subject", sa.String(64), primary_key=True, comment="digest of the owner's id and, for one user, its name"
    ),
    sa.Column("number", sa.BigInteger, nullable=False, comment="tokens made before the revocation of this number end"),
    sa.Column("not_before", UtcDateTime, nullable=False),
    sa.Column("revoked_by", sa.String(300), nullable=False),
    sa.Index("ix_user_token_revocations_number", "number"),
    comment="Kept for as long as a token from before may live.",
)
