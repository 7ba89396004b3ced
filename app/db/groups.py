"""Group commit: what several requests want written is committed once; each is answered after the commit that holds it.

The first to come is written at once; those that come meanwhile are written together when it is done. Nobody waits for
company, and the busier the database, the larger the groups.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from app.db.database import Database
from app.db.failures import Cause, DatabaseUnavailable
from app.errors import AppError, Unavailable

logger = structlog.get_logger(__name__)

_MOST_IN_A_GROUP: Final = 200
_MOST_WAITING: Final = 5000
# A group that is answered whole keeps the loop busy with its requests alone; in slices, others get their turn between.
_ANSWERED_AT_ONCE: Final = 25
_DEADLINE_SECONDS: Final = 15.0
# A group that is held up by a row's lock holds up no other for longer than this, as long as there are few of its kind.
_PATIENCE_SECONDS: Final = 0.1
_MOST_AT_ONCE: Final = 4
_RETRY_AFTER: Final = 2.0
_REMEDY: Final = "see what keeps the database busy (its locks, its disk); deliveries come again by themselves"

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Write = Callable[[Database, Sequence[Item]], Awaitable[Sequence[Answer]]]


@dataclass
class _Waiting:
    """What one request wants written, and where it waits for the answer."""

    item: Any
    answer: asyncio.Future[Any]


@dataclass
class _Queue:
    """Everything that waits to be written in one way."""

    write: Write[Any, Any]
    waiting: deque[_Waiting] = field(default_factory=deque)
    writing: set[asyncio.Task[None]] = field(default_factory=set)
    newest: asyncio.Task[None] | None = None
    """The last group that was begun, as long as the next one waits for it."""


class GroupCommit:
    """The groups of one process: a queue for each way of writing."""

    def __init__(self, database: Database) -> None:
        """Begin with nothing to write."""
        self._database = database
        self._queues: dict[Write[Any, Any], _Queue] = {}

    async def commit(self, write: Write[Item, Answer], item: Item) -> Answer:
        """Have `write` write an item, with those of others; return its answer once it is committed.

        `write` opens a transaction of its own and answers for each item, in their order. It may be called again with a
        part of a group: one item that cannot be written fails alone. Raises what `write` raises, and Unavailable where
        too many wait or the answer takes too long. Whoever is cancelled or stops waiting may or may not be written.
        """
        queue = self._queues.get(write)
        if queue is None:
            queue = self._queues[write] = _Queue(write)
        if len(queue.waiting) >= _MOST_WAITING:
            message = "too much waits to be written to the database"
            raise Unavailable(message, retry_after=_RETRY_AFTER, remedy=_REMEDY)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        queue.waiting.append(_Waiting(item, answer))
        self._go_on(queue)
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return await answer
        except TimeoutError:
            message = "the database is too slow"
            raise Unavailable(message, retry_after=_RETRY_AFTER, remedy=_REMEDY) from None

    async def close(self) -> None:
        """Wait until everything that was begun is written."""
        for queue in self._queues.values():
            while queue.writing:
                await asyncio.wait(queue.writing)

    def _go_on(self, queue: _Queue) -> None:
        """Begin to write what waits, unless it is the turn of those that are being written."""
        if not queue.waiting or queue.newest is not None or len(queue.writing) >= _MOST_AT_ONCE:
            return
        loop = asyncio.get_running_loop()
        # Whose request it is that comes first must not show in the log of the others.
        writing = loop.create_task(self._write_next(queue), context=Context())
        queue.writing.add(writing)
        queue.newest = writing
        patience = loop.call_later(_PATIENCE_SECONDS, self._waited_for, queue, writing)

        def written(_task: asyncio.Task[None]) -> None:
            patience.cancel()
            queue.writing.discard(writing)
            self._waited_for(queue, writing)

        writing.add_done_callback(written)

    def _waited_for(self, queue: _Queue, writing: asyncio.Task[None]) -> None:
        if queue.newest is writing:
            queue.newest = None
        self._go_on(queue)

    async def _write_next(self, queue: _Queue) -> None:
        await self._write(queue.write, _next_group(queue.waiting))

    async def _write(self, write: Write[Any, Any], group: Sequence[_Waiting]) -> None:
        if not group:
            return
        try:
            answers = await self._written(write, [one.item for one in group])
        except AppError as error:
            _refuse(group, error)
        except Exception as error:  # noqa: BLE001  it goes to whoever waits for it
            if len(group) == 1:
                _refuse(group, error)
                return
            logger.warning("group_divided", size=len(group), error_type=type(error).__name__)
            middle = len(group) // 2
            await self._write(write, group[:middle])
            await self._write(write, group[middle:])
        else:
            for number, (one, answer) in enumerate(zip(group, answers, strict=True), 1):
                if not one.answer.done():
                    one.answer.set_result(answer)
                if number % _ANSWERED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _written(self, write: Write[Any, Any], items: Sequence[Any]) -> Sequence[Any]:
        try:
            return await write(self._database, items)
        except DatabaseUnavailable as error:
            # Of two transactions that clash PostgreSQL gives up one, of which nothing is written then.
            if error.failure.cause is not Cause.CONFLICT:
                raise
        return await write(self._database, items)


def _refuse(group: Sequence[_Waiting], error: Exception) -> None:
    for one in group:
        if not one.answer.done():
            one.answer.set_exception(error)


def _next_group(waiting: deque[_Waiting]) -> Sequence[_Waiting]:
    """Take those who wait longest; whoever has stopped waiting is left out."""
    group: list[_Waiting] = []
    while waiting and len(group) < _MOST_IN_A_GROUP:
        one = waiting.popleft()
        if not one.answer.done():
            group.append(one)
    return group
