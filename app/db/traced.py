"""A database whose statements and groups are recorded: their kind and how they ended, never a text or a parameter."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.database import Database
from app.db.groups import Answer, GroupCommit, Item, Write
from app.db.statements import Row, Statement
from app.metrics import Metrics
from app.traces import Span, Traces

_KINDS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "BEGIN"})
_OPEN: Final = "broker_span"


class TracedDatabase(Database):
    """Records statements that are part of something that is recorded."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics | None, traces: Traces) -> None:
        """Take over an engine made by `open_engine`."""
        super().__init__(engine, metrics)
        self._traces = traces
        event.listen(engine.sync_engine, "before_cursor_execute", self._before)
        event.listen(engine.sync_engine, "after_cursor_execute", self._after)
        event.listen(engine.sync_engine, "handle_error", self._failed)

    async def fetch(self, statement: Statement, parameters: Mapping[str, Any]) -> Sequence[Row]:
        """Run one statement of every request."""
        if self.dialect == "sqlite":
            return await super().fetch(statement, parameters)
        span = self._begin_span(statement.compiled(self.engine.dialect).text)
        try:
            rows = await super().fetch(statement, parameters)
        except BaseException as error:
            _end(span, type(error).__name__)
            raise
        _end(span)
        return rows

    def _begin_span(self, text: str) -> Span | None:
        word = text.lstrip("( \n").partition(" ")[0].upper()
        kind = word if word in _KINDS else "other"
        return self._traces.begin(f"database {kind}", db__system__name=self.dialect, db__operation__name=kind)

    def _before(self, connection: sa.Connection, _cursor: Any, text: str, *_statement: Any) -> None:
        connection.info[_OPEN] = self._begin_span(text)

    def _after(self, connection: sa.Connection, *_statement: Any) -> None:
        _end(connection.info.pop(_OPEN, None))

    def _failed(self, context: sa.engine.ExceptionContext) -> None:
        if context.connection is not None:
            _end(context.connection.info.pop(_OPEN, None), type(context.original_exception).__name__)


class TracedGroups(GroupCommit):
    """Records how long what is written in a group waits until it is committed."""

    def __init__(self, database: Database, traces: Traces) -> None:
        """Write to this database."""
        super().__init__(database)
        self._kind = database.dialect
        self._traces = traces

    async def commit(self, write: Write[Item, Answer], item: Item) -> Answer:
        """Have `write` write an item, with those of others."""
        span = self._traces.begin("database group", db__system__name=self._kind, db__operation__name="group")
        try:
            answer = await super().commit(write, item)
        except BaseException as error:
            _end(span, type(error).__name__)
            raise
        _end(span)
        return answer


def _end(span: Span | None, failure: str | None = None) -> None:
    if span is not None:
        if failure is not None:
            span.failed(failure)
        span.end()
