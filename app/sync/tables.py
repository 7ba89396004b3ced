"""The table of sweeps: what was requested, how far it is, and what it found."""

from enum import Enum

import sqlalchemy as sa

from app.db.tables import EnumText, UtcDateTime, metadata


class SweepState(Enum):
    """How far a sweep is. Stopped: it came to its end, and removed nothing that it was not sure of."""

    REQUESTED = "requested"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


sweeps = sa.Table(
    "sweeps",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("state", EnumText(SweepState, 16), nullable=False, comment="requested, running, done, stopped or failed"),
    sa.Column("requested_by", sa.String(300), nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("max_removal_percent", sa.Float, comment="overrides the setting"),
    sa.Column("start_ticket", sa.BigInteger, comment="rows read before it and not listed are suspects"),
    sa.Column("next_page", sa.Integer, nullable=False, server_default=sa.text("0"), comment="where a crash resumes"),
    sa.Column("complete", sa.Boolean, comment="whether the listing came to its end; null: not there yet"),
    sa.Column("last_suspect", sa.String(255), comment="suspects up to this id have been read"),
    sa.Column("listed", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("added", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("changed", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("removed", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("suspects", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("reason", sa.Text, comment="why it stopped or failed, and what to do"),
    sa.Index("ix_sweeps_state", "state"),
)
