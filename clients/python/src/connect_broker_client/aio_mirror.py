"""A copy of all accounts in a table of the caller's. `make docs` writes blocking_mirror.py from it."""

import asyncio
import time
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from connect_broker_client import errors
from connect_broker_client.copies import Phase, Progress, Tables, outcome_of
from connect_broker_client.models import Account

if TYPE_CHECKING:
    from connect_broker_client.aio import AsyncBroker

_WAIT = 25.0
_SECOND = 1.0
_MOST_STEPS = 1_000_000


class _Overtaken(Exception):
    """Another process has advanced the copy meanwhile."""


class AsyncMirror:
    """Keeps the copy. It may be killed at any time and run in several processes: each page is one transaction.

    What the key may see is copied: accounts:read and events:read are needed.
    """

    def __init__(
        self, broker: "AsyncBroker", engine: AsyncEngine, table: str | sa.Table, *, page_size: int = 200
    ) -> None:
        self._broker = broker
        self._engine = engine
        self._tables = Tables(table)
        self._page_size = page_size
        self._is_created = False

    @property
    def table(self) -> sa.Table:
        """The table with the accounts, for queries of your own."""
        return self._tables.accounts

    async def catch_up(self) -> int:
        """Bring the copy to where the feed ends now; return how many accounts were written or removed.

        Starts with a snapshot, goes on where it was left, and starts anew by itself where the broker's database was
        restored from a backup or the changes are no longer kept. Raises TryLater where the broker is away.
        """
        written = 0
        for _ in range(_MOST_STEPS):
            count, is_done = await self._step(wait=0.0)
            written += count
            if is_done:
                return written
        raise errors.TryLater("the feed grows faster than it is copied")

    async def follow(self, *, for_seconds: float | None = None, patience_seconds: float = 3600.0) -> None:
        """Keep the copy up to date, for ever or `for_seconds`. Outages are waited out for `patience_seconds`."""
        ends_at = None if for_seconds is None else time.monotonic() + for_seconds
        answered_at = time.monotonic()
        while ends_at is None or time.monotonic() < ends_at:
            wait = _WAIT if ends_at is None else max(0.0, min(_WAIT, ends_at - time.monotonic()))
            try:
                await self._step(wait=wait)
            except errors.TryLater as error:
                pause = max(_SECOND, error.retry_after or 0.0)
                if time.monotonic() + pause - answered_at > patience_seconds:
                    raise
                await asyncio.sleep(pause)
            else:
                answered_at = time.monotonic()

    async def _step(self, *, wait: float) -> tuple[int, bool]:
        """Copy one page; return how many rows that was, and whether the copy is where the feed ended."""
        progress = await self._progress()
        try:
            if progress.phase is Phase.SNAPSHOT:
                return await self._snapshot_page(progress), False
            return await self._feed_page(progress, wait)
        except errors.PositionGone:
            await self._start_anew(progress)
        except errors.RequestRefused:
            # A snapshot's cursor is refused by a broker that spells cursors in another way: it was replaced meanwhile.
            if progress.phase is not Phase.SNAPSHOT or progress.cursor is None:
                raise
            await self._start_anew(progress)
        except _Overtaken:
            pass
        return 0, False

    async def _progress(self) -> Progress:
        if not self._is_created:
            async with self._engine.begin() as connection:
                await connection.run_sync(self._tables.create)
            self._is_created = True
        async with self._engine.begin() as connection:
            row = (await connection.execute(self._tables.read_progress())).one_or_none()
            progress = self._tables.progress_of(row)
            if progress is not None:
                return progress
        try:
            async with self._engine.begin() as connection:
                await connection.execute(self._tables.begin())
        except sa.exc.IntegrityError:
            # Another process began at the same moment.
            return await self._progress()
        return Progress()

    async def _snapshot_page(self, progress: Progress) -> int:
        page = await self._broker.accounts.snapshot(progress.cursor, limit=self._page_size)
        is_last = page.next_cursor is None
        position = page.feed_position or "0"
        await self._require(progress.witness)
        witness = await self._head()
        is_first = progress.cursor is None
        then = progress.next(
            phase=Phase.FOLLOWING if is_last else Phase.SNAPSHOT,
            position=position if is_last else None,
            cursor=page.next_cursor,
            # Nothing has changed since the snapshot began: it has seen nothing that lies behind it.
            witness=witness if witness != position else None,
        )
        async with self._engine.begin() as connection:
            await self._advance(connection, then)
            if is_first:
                await connection.execute(sa.delete(self._tables.seen))
            await self._write(connection, page.data)
            await self._mark_seen(connection, page.data)
            if is_last:
                await connection.execute(self._tables.delete_unseen())
                await connection.execute(sa.delete(self._tables.seen))
        return len(page.data)

    async def _feed_page(self, progress: Progress, wait: float) -> tuple[int, bool]:
        after = progress.position or "0"
        # A copy that is known to lag behind does not wait.
        page = await self._broker.events.read(
            after, limit=self._page_size, wait=0.0 if progress.witness is not None else wait
        )
        is_at_head = page.is_at_head or not page.data
        witness = progress.witness
        await self._require(witness)
        if not is_at_head:
            witness = await self._head()
            if _number(witness) < int(page.head):
                raise errors.PositionGone("the feed has become shorter")
        elif witness is not None and _number(page.next_cursor) < _number(witness) and page.data:
            # A key for some owners only: the feed ends for it before its head.
            is_at_head = False
        else:
            witness = None
        if not page.data and witness == progress.witness:
            return 0, True
        shown, gone = outcome_of(page.data)
        async with self._engine.begin() as connection:
            await self._advance(connection, progress.next(position=page.next_cursor, witness=witness))
            await self._write(connection, shown)
            if gone:
                await connection.execute(self._tables.delete(gone))
        return len(shown) + len(gone), is_at_head

    async def _head(self) -> str:
        """Return a place of the feed behind everything that was read so far."""
        return (await self._broker.accounts.snapshot(limit=1)).feed_position or "0"

    async def _require(self, witness: str | None) -> None:
        """Raise PositionGone where the changes whose effects the copy has seen are no longer those that there are."""
        if witness is not None:
            await self._broker.events.read(witness, limit=1)

    async def _start_anew(self, progress: Progress) -> None:
        """Go back to a snapshot; the rows stay until it is whole, so that the copy is never empty."""
        try:
            async with self._engine.begin() as connection:
                then = progress.next(phase=Phase.SNAPSHOT, position=None, cursor=None, witness=None)
                await self._advance(connection, then)
        except _Overtaken:
            return

    async def _advance(self, connection: AsyncConnection, then: Progress) -> None:
        """Take the turn. It comes first in each transaction: the row's lock keeps others out until it ends."""
        result = await connection.execute(self._tables.advance(then))
        if result.rowcount != 1:
            raise _Overtaken

    async def _write(self, connection: AsyncConnection, accounts: list[Account]) -> None:
        """Change the rows that are there, and add the others: plain SQL, so that any database will do."""
        rows = {account.account_id: self._tables.values(account) for account in accounts}
        if not rows:
            return
        known = set((await connection.execute(self._tables.known(rows))).scalars())
        if old := [row for account_id, row in rows.items() if account_id in known]:
            await connection.execute(self._tables.update(), old)
        if new := [row for account_id, row in rows.items() if account_id not in known]:
            await connection.execute(self._tables.insert(), new)

    async def _mark_seen(self, connection: AsyncConnection, accounts: list[Account]) -> None:
        ids = {account.account_id for account in accounts}
        seen = self._tables.seen.c.account_id
        known = set((await connection.execute(sa.select(seen).where(seen.in_(ids)))).scalars())
        if new := sorted(ids - known):
            await connection.execute(sa.insert(self._tables.seen), [{"account_id": one} for one in new])


def _number(position: str) -> int:
    return int(position.partition(".")[0])
