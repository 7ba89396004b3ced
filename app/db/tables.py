"""What every table is made of: one metadata, the column types both databases share, and their one way to upsert."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime on both databases; SQLite has no time zones and would hand back naive values."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes: a guess about their zone would reorder events."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = "datetimes must carry a time zone"
            raise ValueError(message)
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Leave PostgreSQL's values alone: they have their zone, and a page of accounts has hundreds of them."""
        return super().result_processor(dialect, coltype) if dialect.name == "sqlite" else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give SQLite's values back the zone they were stored in."""
        del dialect
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


_E = TypeVar("_E", bound=Enum)


class EnumText(sa.types.TypeDecorator[_E]):
    """An Enum in the code, its value as text in the column: SQL that compares it with bare text fails."""

    impl = sa.String
    cache_ok = True

    def __init__(self, enum: type[_E], length: int) -> None:
        """Store the values of `enum`, each at most `length` characters."""
        super().__init__(length)
        self._enum = enum

    def process_bind_param(self, value: _E | None, dialect: Dialect) -> str | None:
        """Write the value's text."""
        del dialect
        return str(self._enum(value).value) if value is not None else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> _E | None:
        """Read the text back."""
        del dialect
        return self._enum(value) if value is not None else None


def row_version(table: sa.Table) -> sa.ColumnElement[str]:
    """Return PostgreSQL's own mark of a row's version, as text: every update changes it, whoever makes it.

    SQLite has none, and needs none: it has one writer.
    """
    return sa.cast(sa.literal_column(f"{table.name}.xmin"), sa.Text)


# JSON that PostgreSQL can index and compare.
Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upsert(
    connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]
) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT that can say ON CONFLICT; both dialects spell it the same way."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return insert(table).values(rows)
