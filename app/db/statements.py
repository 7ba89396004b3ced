"""Statements of every request: written in SQLAlchemy Core, compiled once, and run on PostgreSQL by the driver itself.

SQLAlchemy's own execution finds the same text under the same key and switches greenlets at each await, every time. What
it does to values is kept: the types of parameters and columns convert them here as they do there (ADR 6).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

Row = Sequence[Any]
_Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class Compiled:
    """A statement as the driver takes it, and what its values go through on their way there and back."""

    text: str
    _parameters: Sequence[tuple[str, Any, _Convert | None]]
    _columns: Sequence[tuple[int, _Convert]]

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the parameters in the driver's order; those of the statement itself need not be given."""
        values = []
        for name, default, convert in self._parameters:
            value = parameters.get(name, default)
            values.append(value if convert is None else convert(value))
        return values

    def rows(self, records: Sequence[Any]) -> Sequence[Row]:
        """Return the driver's records as rows."""
        if not self._columns:
            return records
        rows = []
        for record in records:
            row = list(record)
            for position, convert in self._columns:
                row[position] = convert(row[position])
            rows.append(row)
        return rows


class Statement:
    """One statement that returns rows, with named parameters; made once, at the top of its module."""

    def __init__(self, query: sa.Select[Any]) -> None:
        """A writing statement is a query of the CTEs that write."""
        self.query: Final = query
        self._compiled: Compiled | None = None

    def compiled(self, dialect: Dialect) -> Compiled:
        """Return what the driver takes; one process has one kind of database that is spoken to like this."""
        if self._compiled is None:
            self._compiled = _compile(self.query, dialect)
        return self._compiled


def _compile(query: sa.Select[Any], dialect: Dialect) -> Compiled:
    compiled = query.compile(dialect=dialect)
    defaults = compiled.params
    parameters = []
    for name in getattr(compiled, "positiontup", None) or ():
        type_ = compiled.binds[name].type.dialect_impl(dialect)
        parameters.append((name, defaults[name], type_.bind_processor(dialect)))
    columns = []
    for position, column in enumerate(query.selected_columns):
        convert = column.type.dialect_impl(dialect).result_processor(dialect, None)
        if convert is not None:
            columns.append((position, convert))
    return Compiled(str(compiled), parameters, columns)
