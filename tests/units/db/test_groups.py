"""Group commit: who is written with whom, and what one item may do to the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from app.db.database import Database
from app.db.failures import Cause, DatabaseUnavailable, Failure
from app.db.groups import GroupCommit
from app.errors import Unavailable
from tests.support.databases import SqliteDatabases, engine_of

pytestmark = pytest.mark.anyio


@dataclass
class Writer:
    """Writes as a database would that takes as long as it is told to."""

    groups: list[list[str]] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, _database: Database, items: Sequence[str]) -> Sequence[str]:
        """Write items; `bad` is a mistake, `away` an outage, `stuck` waits for a lock."""
        self.groups.append(list(items))
        self.begun.set()
        await asyncio.sleep(0)
        if "stuck" in items:
            await self.held.wait()
        if "bad" in items:
            message = "no such value"
            raise ValueError(message)
        if "away" in items:
            raise DatabaseUnavailable(Failure(Cause.UNREACHABLE))
        if "clash" in items and len(self.groups) == 1:
            raise DatabaseUnavailable(Failure(Cause.CONFLICT))
        return [item.upper() for item in items]


@pytest.fixture
async def commits(sqlite_databases: SqliteDatabases) -> AsyncIterator[GroupCommit]:
    """Open the groups of a process."""
    database = Database(engine_of(sqlite_databases.create()))
    opened = GroupCommit(database)
    yield opened
    await opened.close()
    await database.close()


async def test_those_that_come_during_a_write_are_written_together(commits: GroupCommit) -> None:
    writer = Writer()
    first = asyncio.create_task(commits.commit(writer.write, "first"))
    await writer.begun.wait()
    others = [asyncio.create_task(commits.commit(writer.write, f"{number}")) for number in range(450)]
    assert await asyncio.gather(first, *others) == ["FIRST", *(f"{number}" for number in range(450))]
    assert [len(group) for group in writer.groups] == [1, 200, 200, 50]


async def test_one_that_cannot_be_written_fails_alone(commits: GroupCommit) -> None:
    writer = Writer()
    items = ["a", "b", "bad", "c", "bad", "d"]
    results = await asyncio.gather(*(commits.commit(writer.write, item) for item in items), return_exceptions=True)
    assert [result if isinstance(result, str) else type(result) for result in results] == [
        "A",
        "B",
        ValueError,
        "C",
        ValueError,
        "D",
    ]


async def test_an_outage_is_everybody_s_and_passes(commits: GroupCommit) -> None:
    writer = Writer()
    results = await asyncio.gather(
        *(commits.commit(writer.write, item) for item in ("a", "away", "b")), return_exceptions=True
    )
    assert {type(result) for result in results} == {DatabaseUnavailable}
    assert writer.groups == [["a", "away", "b"]], "what is away is not asked again for each of them"
    assert await commits.commit(writer.write, "c") == "C"


async def test_one_that_clashes_with_another_transaction_is_written_once_more(commits: GroupCommit) -> None:
    assert await commits.commit(Writer().write, "clash") == "CLASH"


async def test_who_hangs_up_takes_nobody_along(commits: GroupCommit) -> None:
    writer = Writer()
    first = asyncio.create_task(commits.commit(writer.write, "stuck"))
    await writer.begun.wait()
    waiting = [asyncio.create_task(commits.commit(writer.write, item)) for item in ("a", "gone", "b")]
    await asyncio.sleep(0)
    first.cancel()
    waiting[1].cancel()
    writer.held.set()
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, str, asyncio.CancelledError, str]
    assert writer.groups == [["stuck"], ["a", "b"]]


async def test_one_that_waits_for_a_lock_holds_up_nobody_for_long(commits: GroupCommit) -> None:
    writer = Writer()
    stuck = [asyncio.create_task(commits.commit(writer.write, "stuck"))]
    await writer.begun.wait()
    assert await asyncio.wait_for(commits.commit(writer.write, "a"), 5) == "A"
    # Four at once are the most: a database that is stuck as a whole is not asked without end.
    for _ in range(5):
        stuck.append(asyncio.create_task(commits.commit(writer.write, "stuck")))
        await asyncio.sleep(0.12)
    assert writer.groups.count(["stuck"]) == 4
    writer.held.set()
    assert await asyncio.gather(*stuck) == ["STUCK"] * 6


async def test_more_than_can_be_kept_in_mind_is_refused(commits: GroupCommit) -> None:
    writer = Writer()
    first = asyncio.create_task(commits.commit(writer.write, "stuck"))
    await writer.begun.wait()
    waiting = [asyncio.create_task(commits.commit(writer.write, "a")) for _ in range(5000)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await commits.commit(writer.write, "one too many")
    writer.held.set()
    assert set(await asyncio.gather(first, *waiting)) == {"STUCK", "A"}


async def test_closing_waits_for_what_was_begun(commits: GroupCommit) -> None:
    writer = Writer()
    first = asyncio.create_task(commits.commit(writer.write, "stuck"))
    await writer.begun.wait()
    first.cancel()
    closing = asyncio.create_task(commits.close())
    await asyncio.sleep(0)
    assert not closing.done()
    writer.held.set()
    await closing
