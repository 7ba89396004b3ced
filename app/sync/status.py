"""How the store stands against StackOne, for whoever asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.linked_accounts.store import count_due_of_all_owners, count_known_of_all_owners
from app.runtime import Runtime
from app.sync import runs
from app.sync.runs import Sweep

_RUNS_SHOWN = 10


@dataclass(frozen=True)
class Status:
    """How the store stands against StackOne."""

    current: Sweep | None
    """The sweep that runs, was interrupted or waits."""
    last_runs: Sequence[Sweep]
    accounts: int
    due: int
    is_first_fill: bool
    """Whether no sweep had come to its end before the last one: it filled the store, and nothing had been lost."""


async def read_status(runtime: Runtime) -> Status:
    """Read how the store stands against StackOne."""
    async with runtime.database.reading() as connection:
        return Status(
            current=await runs.unfinished(connection),
            last_runs=await runs.recent(connection, _RUNS_SHOWN),
            is_first_fill=(await runs.past(connection)).is_first_fill,
            accounts=await count_known_of_all_owners(connection),
            due=await count_due_of_all_owners(connection),
        )
