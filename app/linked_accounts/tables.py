"""The tables of linked accounts and of everything that happened to them."""

import sqlalchemy as sa

from app.db.tables import Json, UtcDateTime, metadata

_ID = sa.String(255)
# A kind and a subject, "user:<sub>": longer than the subject alone may be.
_ACTOR = sa.String(300)

linked_accounts = sa.Table(
    "linked_accounts",
    metadata,
    sa.Column("account_id", _ID, primary_key=True),
    # Null until StackOne, asked, has told whose it is: what an event says of the owner is not kept.
    sa.Column("owner_id", _ID),
    sa.Column("owner_name", sa.Text),
    sa.Column("username", sa.Text),
    sa.Column("provider", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("status_reasons", Json),
    sa.Column("label", sa.Text),
    sa.Column("type", sa.Text),
    sa.Column("created_at", UtcDateTime, comment="StackOne's"),
    sa.Column("updated_at", UtcDateTime, comment="StackOne's; a row never moves behind it"),
    sa.Column("needs_reauth_since", UtcDateTime),
    sa.Column("recovered_at", UtcDateTime),
    sa.Column("remind_at", UtcDateTime, comment="when to tell once more that it is broken; null: not worked out yet"),
    sa.Column(
        "verified_at", UtcDateTime, comment="last time StackOne confirmed the row; null: only an event spoke of it"
    ),
    sa.Column("read_ticket", sa.BigInteger, comment="order of the read the row comes from"),
    sa.Column("deleted_at", UtcDateTime, comment="tombstone; only a later read that shows the account ends it"),
    sa.Column("gone_since", UtcDateTime, comment="since when reads say that there is no such account"),
    sa.Column(
        "deletion_witness", sa.String(16), comment="what else says so: event, listing, deletion or an earlier read"
    ),
    sa.Column("erasure_id", sa.String(64), comment="of the erasure that cleared the tombstone: it is never revived"),
    sa.Column("refresh_due_at", UtcDateTime, comment="when to read the account again; null: nothing to do"),
    sa.Column("refresh_marks", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="hints received"),
    sa.Column("refresh_attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("claimed_until", UtcDateTime, comment="a process is reading it until then"),
    sa.Column("disconnect_requested_at", UtcDateTime, comment="to be deleted at StackOne"),
    sa.Column("disconnect_requested_by", _ACTOR),
    sa.Column("confirmed_at", UtcDateTime, comment="when a user last said to have linked it, and a read agreed"),
    sa.Column("confirmed_by", _ACTOR),
    sa.Column("swept_in", sa.BigInteger, comment="last sweep that listed it"),
    # Owner first: every end user's read is for one owner, which is also the natural shard key.
    sa.Index("ix_linked_accounts_owner_id_account_id", "owner_id", "account_id"),
    sa.Index("ix_linked_accounts_refresh_due_at", "refresh_due_at"),
    sa.Index(
        "ix_linked_accounts_needs_reauth_since",
        "needs_reauth_since",
        "account_id",
        postgresql_where=sa.text("needs_reauth_since IS NOT NULL"),
        sqlite_where=sa.text("needs_reauth_since IS NOT NULL"),
    ),
    sa.Index("ix_linked_accounts_provider_status", "provider", "status", "account_id"),
    sa.Index("ix_linked_accounts_updated_at", "updated_at"),
    sa.Index(
        "ix_linked_accounts_gone_since",
        "gone_since",
        postgresql_where=sa.text("gone_since IS NOT NULL"),
        sqlite_where=sa.text("gone_since IS NOT NULL"),
    ),
)

account_events = sa.Table(
    "account_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("position", sa.BigInteger, unique=True, comment="place in the change feed; null: not part of it"),
    sa.Column("digest", sa.LargeBinary(32), unique=True, comment="of a webhook delivery: a repeat is no news"),
    sa.Column("account_id", _ID, nullable=False),
    sa.Column("owner_id", _ID),
    sa.Column("provider", sa.Text),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("actor", _ACTOR, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("changes", Json),
    sa.Index("ix_account_events_account_id_id", "account_id", "id"),
    sa.Index("ix_account_events_owner_id_position", "owner_id", "position"),
    # Old hints are thrown away by age; changes, which have a position, are kept.
    sa.Index(
        "ix_account_events_hints_at",
        "at",
        postgresql_where=sa.text("position IS NULL"),
        sqlite_where=sa.text("position IS NULL"),
    ),
    comment="append-only",
)
