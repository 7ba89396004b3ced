"""How a sweep grows: time, memory and statements per account: python -m bench.sweep DATABASE_URL ACCOUNTS...

StackOne is played inside the process, so that the figures are the broker's alone: pages are made up on the fly, ten
accounts to an owner.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import httpx2
import sqlalchemy as sa
from sqlalchemy import event

from app.db.tables import metadata
from app.logs import configure_logs
from app.runtime import Externals, Runtime, open_runtime
from app.sync.sweep import run_sweep
from app.sync.tables import SweepState
from tests.support.world import settings_for

PAGE = 100
STAMP = "2026-01-01T00:00:00.000Z"


class ManyAccounts(httpx2.AsyncBaseTransport):
    """A StackOne with as many accounts as wished, whose listing costs next to nothing."""

    def __init__(self, count: int) -> None:
        """Have `count` accounts."""
        self.count = count

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a page of the listing."""
        page = max(1, int(request.url.params.get("page", "1")))
        rows = [self._account(number) for number in range((page - 1) * PAGE, min(page * PAGE, self.count))]
        return httpx2.Response(200, content=json.dumps(rows).encode(), request=request)

    @staticmethod
    def _account(number: int) -> dict[str, Any]:
        owner = f"org{number // 10:06}"
        return {
            "id": f"acc{number:018}",
            "provider": "bamboohr",
            "status": "active",
            "origin_owner_id": owner,
            "origin_owner_name": owner.title(),
            "created_at": STAMP,
            "updated_at": STAMP,
        }


def memory_mib() -> float:
    """Return what the process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  a file of the kernel
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


async def measure(runtime: Runtime, what: str, accounts: int) -> dict[str, Any]:
    """Sweep once and say what it cost."""
    statements = 0

    def count(*_arguments: object) -> None:
        nonlocal statements
        statements += 1

    memory: list[float] = []
    event.listen(runtime.database.engine.sync_engine, "before_cursor_execute", count)
    started, cpu = time.perf_counter(), time.process_time()
    sweep = await run_sweep(runtime, by="bench", listener=lambda _sweep, _known: memory.append(memory_mib()))
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    event.remove(runtime.database.engine.sync_engine, "before_cursor_execute", count)
    assert sweep is not None
    assert (sweep.state, sweep.listed) == (SweepState.DONE, accounts)
    tenth = max(1, len(memory) // 10)
    return {
        "database": runtime.database.dialect,
        "sweep": what,
        "accounts": accounts,
        "seconds": round(took, 1),
        "cpu_seconds": round(cpu, 1),
        "us_per_account": round(took / accounts * 1e6),
        "statements_per_account": round(statements / accounts, 3),
        "memory_mib_first_tenth": round(statistics.mean(memory[:tenth]), 1),
        "memory_mib_last_tenth": round(statistics.mean(memory[-tenth:]), 1),
    }


async def bench(database_url: str, counts: Sequence[int]) -> None:
    """Fill the store by a first sweep and sweep it again, for each number of accounts.

    The database must be migrated and disposable: it is emptied and filled.
    """
    settings = settings_for(
        database_url=database_url,
        stackone_url="http://127.0.0.1:9",
        issuer="http://127.0.0.1:9",
        stackone={"requests_per_minute": 100_000},
        sync={"sweep_page_size": PAGE},
    )
    for accounts in counts:
        # No budget of calls holds this back: StackOne's limit, not the broker, sets the pace in earnest.
        async with open_runtime(settings, Externals(stackone_transport=ManyAccounts(accounts))) as runtime:
            async with runtime.database.transaction() as connection:
                for table in reversed(metadata.sorted_tables):
                    await connection.execute(sa.delete(table))
            for what in ("first", "again", "again"):
                sys.stderr.write(f"{runtime.database.dialect}: {accounts} accounts, {what} sweep\n")
                sys.stdout.write(json.dumps(await measure(runtime, what, accounts)) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    configure_logs("ERROR")
    asyncio.run(bench(sys.argv[1], [int(count) for count in sys.argv[2:]]))
