"""The tables of a mirror and what is written into them; nothing here is sent or waited for.

A mirror writes two tables beside the one with the accounts: one row that says how far the copy has come, and the ids
that a snapshot which is being read has shown.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from connect_broker_client.models import Account, Event

_KEY: Final = sa.String(255)
_POSITION: Final = sa.String(64)
_TYPES: Final[Mapping[str, type[sa.types.TypeEngine[Any]] | sa.types.TypeEngine[Any]]] = {
    "owner_id": _KEY,
    "owner_name": sa.Text,
    "username": sa.Text,
    "provider": _KEY,
    "status": _KEY,
    "usable": sa.Boolean,
    "leaving": sa.Boolean,
    "needs_reauth": sa.Boolean,
    "needs_reauth_since": sa.DateTime(timezone=True),
    "recovered_at": sa.DateTime(timezone=True),
    "status_reasons": sa.JSON,
    "label": sa.Text,
    "type": _KEY,
    "created_at": sa.DateTime(timezone=True),
}
_NEVER_NULL: Final = frozenset({"owner_id", "provider", "status", "usable", "leaving", "needs_reauth"})
COLUMNS: Final = ("account_id", *_TYPES)


class Phase(enum.Enum):
    """What a mirror is doing."""

    SNAPSHOT = "snapshot"
    FOLLOWING = "following"


@dataclass(frozen=True)
class Progress:
    """How far a copy has come.

    `position` is where the feed is gone on from, `cursor` the page of a snapshot that comes next. `witness` is a place
    of the feed that lies behind everything that the copy can have seen: an account is shown as it is when it is read,
    so that a copy which lags behind knows of changes that it has not come to. By it a restored backup is noticed.
    """

    phase: Phase = Phase.SNAPSHOT
    position: str | None = None
    cursor: str | None = None
    witness: str | None = None
    version: int = 0

    def next(self, **changes: Any) -> "Progress":
        """Return the progress that follows; versions only grow."""
        return replace(self, version=self.version + 1, **changes)


class Tables:
    """The three tables of a mirror."""

    def __init__(self, accounts: str | sa.Table) -> None:
        """Take a table of the caller's, whose columns named as an account's fields are filled; or the name of one."""
        self.accounts = _accounts_table(accounts) if isinstance(accounts, str) else accounts
        if "account_id" not in self.accounts.c:
            raise ValueError("the table needs a column account_id")
        self.columns = [name for name in COLUMNS if name in self.accounts.c]
        metadata, schema = sa.MetaData(), self.accounts.schema
        name = self.accounts.name
        self.progress = sa.Table(
            f"{name}_mirror",
            metadata,
            sa.Column("name", _KEY, primary_key=True),
            sa.Column("phase", sa.String(16), nullable=False),
            sa.Column("position", _POSITION),
            sa.Column("page_cursor", sa.Text),
            sa.Column("witness", _POSITION),
            sa.Column("version", sa.BigInteger, nullable=False),
            schema=schema,
        )
        self.seen = sa.Table(f"{name}_seen", metadata, sa.Column("account_id", _KEY, primary_key=True), schema=schema)
        self._name = name

    def create(self, connection: sa.Connection) -> None:
        """Make the tables that are missing."""
        for table in (self.accounts, self.progress, self.seen):
            table.create(connection, checkfirst=True)

    def read_progress(self) -> sa.Select[Any]:
        """Return the query for the one row."""
        return sa.select(self.progress).where(self.progress.c.name == self._name)

    def progress_of(self, row: Any) -> Progress | None:
        """Return what the row says."""
        if row is None:
            return None
        return Progress(Phase(row.phase), row.position, row.page_cursor, row.witness, row.version)

    def begin(self) -> sa.Insert:
        """Return what writes the first progress."""
        return sa.insert(self.progress).values(name=self._name, **_row(Progress()))

    def advance(self, then: Progress) -> sa.Update:
        """Return what writes progress, if nobody else has meanwhile: it must touch one row."""
        is_ours = sa.and_(self.progress.c.name == self._name, self.progress.c.version == then.version - 1)
        return sa.update(self.progress).where(is_ours).values(**_row(then))

    def known(self, account_ids: Iterable[str]) -> sa.Select[Any]:
        """Return the query for those that the copy has."""
        column = self.accounts.c.account_id
        return sa.select(column).where(column.in_(list(account_ids)))

    def update(self) -> sa.Update:
        """Return what changes rows; parameters are those of `values`."""
        others = {name: sa.bindparam(f"new_{name}", type_=self.accounts.c[name].type) for name in self.columns[1:]}
        return (
            sa.update(self.accounts).where(self.accounts.c.account_id == sa.bindparam("new_account_id")).values(others)
        )

    def insert(self) -> sa.Insert:
        """Return what adds rows; parameters are those of `values`."""
        columns = {name: sa.bindparam(f"new_{name}", type_=self.accounts.c[name].type) for name in self.columns}
        return sa.insert(self.accounts).values(columns)

    def delete(self, account_ids: Iterable[str]) -> sa.Delete:
        """Return what removes rows."""
        return sa.delete(self.accounts).where(self.accounts.c.account_id.in_(list(account_ids)))

    def delete_unseen(self) -> sa.Delete:
        """Return what removes the rows that a whole snapshot has not shown."""
        seen = sa.select(self.seen.c.account_id)
        return sa.delete(self.accounts).where(self.accounts.c.account_id.not_in(seen))

    def values(self, account: Account) -> dict[str, Any]:
        """Return what is written of an account."""
        told = account.model_dump(include={*self.columns})
        return {f"new_{name}": _utc(told[name]) for name in self.columns}


def outcome_of(events: Sequence[Event]) -> tuple[list[Account], list[str]]:
    """Return the accounts to write and the ids to remove.

    All changes of a page show their account as it was when the page was read. An account that changed hands is shown by
    the changes of its new owner only; those of the old one say nothing, and what shows it counts.
    """
    shown = {event.account_id: event.account for event in events if event.account is not None}
    gone = {event.account_id for event in events} - shown.keys()
    return list(shown.values()), sorted(gone)


def _accounts_table(name: str) -> sa.Table:
    columns = [
        sa.Column(column, kind, nullable=column not in _NEVER_NULL, index=column == "owner_id")
        for column, kind in _TYPES.items()
    ]
    return sa.Table(name, sa.MetaData(), sa.Column("account_id", _KEY, primary_key=True), *columns)


def _row(progress: Progress) -> dict[str, Any]:
    return {
        "phase": progress.phase.value,
        "position": progress.position,
        "page_cursor": progress.cursor,
        "witness": progress.witness,
        "version": progress.version,
    }


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value
