"""Connections to SQLite that end when they are told to, whoever was cancelled while using them.

The driver's connection is a thread that answers to the event loop. One that was cancelled while it opened, or dropped
in a cancelled transaction, would answer to a loop that may be closed by then, and could keep the file's write lock.
"""

import asyncio
import sqlite3
from functools import partial
from typing import Any

import aiosqlite

# At once and in the thread: a cursor that somebody was cancelled over would keep the lock that WAL is entered under.
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF")


def _connect(database: str, **options: Any) -> sqlite3.Connection:
    # The driver's own transaction handling begins too late and DEFERRED; the engine says BEGIN itself.
    connection: sqlite3.Connection = sqlite3.connect(database, isolation_level=None, **options)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


class SqliteConnection(aiosqlite.Connection):
    """A connection whose thread is known to end: the library's own `stop` is a promise that nobody waits for."""

    ended: asyncio.Future[Any] | None = None

    async def close(self) -> None:
        """Close the file and end the thread; an unfinished statement would keep its transaction, and the lock."""
        if self._connection is not None and self.ended is None:
            self._tx.put_nowait((None, self._connection.rollback))
        await super().close()

    def stop(self) -> asyncio.Future[Any] | None:
        """Close the file and end the thread, once: a second promise would be one to a thread that is gone."""
        if self.ended is None:
            if self._connection is not None:
                # `close`, cancelled beside this, forgets the connection, and then the library's `stop` closes nothing.
                self._tx.put_nowait((None, self._connection.rollback))
                self._tx.put_nowait((None, self._connection.close))
            self.ended = super().stop()
        # Whoever waits may be cancelled, which must not make the thread look ended.
        return None if self.ended is None else asyncio.shield(self.ended)


class SqliteConnections:
    """The connections of one engine. Each is a thread that answers to the event loop, which must not end before it."""

    def __init__(self) -> None:
        """Begin without any."""
        self._opening: set[asyncio.Task[SqliteConnection]] = set()
        self._opened: set[SqliteConnection] = set()

    async def open(self, database: str, **options: Any) -> SqliteConnection:
        """Open a file; if the caller is cancelled meanwhile, `close` finds it."""

        async def connect() -> SqliteConnection:
            connection = SqliteConnection(partial(_connect, database, **options), iter_chunk_size=64)
            try:
                await connection
            except BaseException:
                # Its thread still has a word to say to the loop.
                if connection.ended is not None:
                    await asyncio.wait({connection.ended})
                raise
            return connection

        # Those whose threads have ended need no care any more.
        self._opened = {connection for connection in self._opened if not _has_ended(connection)}
        opening = asyncio.ensure_future(connect())
        self._opening.add(opening)
        opening.add_done_callback(self._has_opened)
        return await asyncio.shield(opening)

    def _has_opened(self, opening: "asyncio.Task[SqliteConnection]") -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is None:
            self._opened.add(opening.result())

    async def close(self) -> None:
        """Close what is still open, whoever was cancelled while using it, and wait for the end of every thread."""
        if self._opening:
            await asyncio.wait(self._opening)
            await asyncio.sleep(0)
        for connection in self._opened:
            connection.stop()
        ending = [connection.ended for connection in self._opened if connection.ended is not None]
        if ending:
            await asyncio.wait(ending)


def _has_ended(connection: SqliteConnection) -> bool:
    return connection.ended is not None and connection.ended.done()
