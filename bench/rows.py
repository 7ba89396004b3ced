"""What a full store weighs and answers: python -m bench.rows DATABASE_URL [ACCOUNTS], on an empty PostgreSQL.

The tables are filled by PostgreSQL itself, as years of use would leave them: ten accounts to an owner, one change and
one session to an account, keys in no order. Then every table and index is weighed, the reads that requests and jobs
make are timed, and the accounts are laid into hash partitions once, to see what that would cost.
"""

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from app.gauges import read_gauges
from app.linked_accounts.due import claim_due, mark_due
from app.linked_accounts.feed import read_feed
from app.linked_accounts.queries import AllAccountsQuery
from app.linked_accounts.store import count_known_of_all_owners, get_for_any_owner, list_for_owner, list_of_owners
from app.logs import configure_logs
from app.runtime import Runtime, open_runtime
from tests.support.databases import migrate
from tests.support.world import settings_for

_TIMES = 200
_STEP = 1_000_000
_PARTITIONS = 16

# An id as StackOne gives them, twenty digits in no order: numbers are spread by a factor that has no common divisor
# with the range, so that none comes twice.
_ID = "lpad((n::numeric * 48271000000007 % 99999999999999999989)::text, 20, '0')"
_OWNER = "'org_' || md5((n / 10)::text)"
_FILLS = {
    "owners": f"""
        INSERT INTO owners (owner_id, owner_name, pinned_at, pinned_by)
        SELECT {_OWNER}, 'Customer ' || n / 10, now(), 'user:' || md5(n::text) || '@https://login.example.com/'
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint), 10) AS n""",  # noqa: S608  our own text
    "linked_accounts": f"""
        INSERT INTO linked_accounts (account_id, owner_id, owner_name, username, provider, status, type, created_at,
            updated_at, needs_reauth_since, remind_at, verified_at, read_ticket, confirmed_at, confirmed_by, swept_in)
        SELECT {_ID}, {_OWNER}, 'Customer ' || n / 10, 'person' || n || '@customer.example',
            (ARRAY['bamboohr', 'workday', 'salesforce', 'hibob', 'greenhouse'])[1 + n % 5],
            CASE WHEN n % 1000 = 0 THEN 'error' ELSE 'active' END, 'production', now() - n % 1000 * interval '1 day',
            now() - n % 100000 * interval '1 minute',
            CASE WHEN n % 1000 = 0 THEN now() - n % 100000 * interval '1 minute' END,
            CASE WHEN n % 1000 = 0 THEN now() + interval '1 day' END, now(), n, now(),
            'user:' || md5(n::text) || '@https://login.example.com/', 1
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n""",  # noqa: S608
    "account_events": f"""
        INSERT INTO account_events (position, account_id, owner_id, provider, kind, source, actor, at, changes)
        SELECT n, {_ID}, {_OWNER}, (ARRAY['bamboohr', 'workday', 'salesforce', 'hibob', 'greenhouse'])[1 + n % 5],
            'account.linked', 'confirm', 'user:' || md5(n::text) || '@https://login.example.com/',
            now() - (10000000 - n) * interval '3 seconds', '{{"status": [null, "active"]}}'
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n""",  # noqa: S608
    "connect_sessions": f"""
        INSERT INTO connect_sessions (id, owner_id, requested_by, door, mode, status, provider, upstream_id,
            linked_account_id, was_new, created_at, expires_at, resolved_at)
        SELECT 'cs_' || md5(n::text), {_OWNER}, 'user:' || md5(n::text) || '@https://login.example.com/', 'browser',
            'create', 'linked', 'bamboohr', md5('s' || n), {_ID}, true, now() - n % 90 * interval '1 day',
            now() - n % 90 * interval '1 day' + interval '30 minutes', now() - n % 90 * interval '1 day'
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n""",  # noqa: S608
}
# Of an index, the table that it is of.
_WEIGHTS = """
    SELECT coalesce(t.relname, c.relname) AS of, CASE WHEN t.relname IS NULL THEN '' ELSE c.relname END AS index,
           pg_relation_size(c.oid), c.reltuples::bigint
    FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = i.indrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') AND pg_relation_size(c.oid) > 1000000
    ORDER BY 1, t.relname IS NOT NULL, 3 DESC"""


_CONSTRAINTS = """
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = CAST(:table AS regclass) AND contype IN ('p', 'u')"""
_INDEXES = """
    SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = CAST(:table AS regclass)"""
_SOME = "SELECT account_id, owner_id FROM linked_accounts TABLESAMPLE SYSTEM ({}) REPEATABLE (8)"


def say(**said: Any) -> None:
    """Tell one finding."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def without_indexes(runtime: Runtime, table: str) -> list[str]:
    """Take a table's indexes away; return what makes them anew."""
    async with runtime.database.transaction() as connection:
        constraints = (await connection.execute(sa.text(_CONSTRAINTS), {"table": table})).all()
        for name, _ in constraints:
            await connection.execute(sa.text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
        indexes = (await connection.execute(sa.text(_INDEXES), {"table": table})).all()
        for name, _ in indexes:
            await connection.execute(sa.text(f"DROP INDEX {name}"))
    return [
        *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {made}" for name, made in constraints),
        *(made for _, made in indexes),
    ]


async def fill(runtime: Runtime, accounts: int) -> None:
    """Fill the tables a million accounts at a time, and make their indexes afterwards: keys in no order take hours."""
    for table, statement in _FILLS.items():
        began = time.perf_counter()
        makes = await without_indexes(runtime, table)
        for first in range(0, accounts, _STEP):
            last = min(first + _STEP, accounts) - 1
            async with runtime.database.transaction() as connection:
                await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
                await connection.execute(sa.text(statement), {"first": first, "last": last})
        for make in makes:
            async with runtime.database.transaction() as connection:
                await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
                await connection.execute(sa.text(make))
        say(filled=table, seconds=round(time.perf_counter() - began))
    async with runtime.database.transaction() as connection:
        await connection.execute(
            sa.text(
                "INSERT INTO counters (name, value) VALUES ('account_events', :n)"
                " ON CONFLICT (name) DO UPDATE SET value = :n"
            ),
            {"n": accounts},
        )


async def weigh(runtime: Runtime) -> None:
    """Say what every table and index takes."""
    engine = runtime.database.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(sa.text("SET statement_timeout = 0"))
        await connection.execute(sa.text("VACUUM ANALYZE"))
        for table, index, size, rows in await connection.execute(sa.text(_WEIGHTS)):
            say(
                table=table,
                index=index or None,
                mib=round(size / 2**20),
                bytes_a_row=round(size / max(rows, 1)),
                rows=rows,
            )


async def timed(what: str, ask: Callable[[], Awaitable[object]], times: int = _TIMES) -> None:
    """Say how long something takes, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    say(what=what, times=times, median_ms=round(statistics.median(took), 2), slowest_ms=round(took[-1], 2))


async def ask_everything(runtime: Runtime, accounts: int) -> None:
    """Time what requests and jobs read."""
    chance = random.Random(8)  # noqa: S311  no secret
    database = runtime.database
    async with database.reading() as connection:
        rows = await connection.execute(sa.text(_SOME.format(min(100, 2_000_000 / accounts))))
        known = [tuple(row) for row in rows]

    async def in_reading(ask: Callable[[Any], Awaitable[object]]) -> None:
        async with database.reading() as connection:
            await ask(connection)

    def some() -> Any:
        return chance.choice(known)

    await timed("an owner's list", lambda: in_reading(lambda c: list_for_owner(c, some()[1], limit=51)))
    await timed("one account", lambda: get_for_any_owner(database, some()[0]))
    for name, query in {
        "a page of all accounts": AllAccountsQuery(),
        "the longest broken": AllAccountsQuery(needs_reauth=True),
        "a provider's": AllAccountsQuery(provider=["workday"]),
        "an owner's of all": AllAccountsQuery(owner_id=["org_x"]),
    }.items():
        after = (None, some()[0]) if not query.needs_reauth else None
        page = partial(list_of_owners, query=query, owner_ids=None, after=after, limit=51)
        await timed(name, partial(in_reading, page))
    await timed(
        "a page of the feed",
        lambda: in_reading(lambda c: read_feed(c, after=chance.randrange(accounts - 200), limit=100)),
    )

    async def event() -> None:
        async with database.transaction() as connection:
            await mark_due(connection, some()[0], now=runtime.clock.now())

    await timed("an event marks an account", event)
    minute = timedelta(minutes=1)
    await timed(
        "due accounts are claimed",
        lambda: claim_due(database, now=runtime.clock.now(), claim_for=minute, longest_wait=minute, limit=20),
        times=10,
    )
    await timed("the gauges", lambda: read_gauges(runtime), times=10)
    await timed("a sweep counts what is known", lambda: in_reading(count_known_of_all_owners), times=3)


async def lay_into_partitions(runtime: Runtime, accounts: int) -> None:
    """Copy the accounts into partitions by owner, and ask them what the table is asked."""
    engine = runtime.database.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:

        async def run(statement: str) -> Any:
            return await connection.execute(sa.text(statement))

        await run("SET statement_timeout = 0")
        await run("CREATE TABLE parted (LIKE linked_accounts INCLUDING DEFAULTS) PARTITION BY HASH (owner_id)")
        for number in range(_PARTITIONS):
            await run(
                f"CREATE TABLE parted_{number} PARTITION OF parted"
                f" FOR VALUES WITH (MODULUS {_PARTITIONS}, REMAINDER {number})"
            )
        began = time.perf_counter()
        await run("INSERT INTO parted SELECT * FROM linked_accounts")
        for columns in (
            "owner_id, account_id",
            "account_id",
            "refresh_due_at",
            "provider, status, account_id",
            "updated_at",
        ):
            unique = "UNIQUE" if columns.startswith("owner_id") else ""
            await run(f"CREATE {unique} INDEX ON parted ({columns})")
        await run("ANALYZE parted")
        say(what="partitions filled", seconds=round(time.perf_counter() - began))
        sizes = await run("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('parted')")
        say(what="partitions", mib=round(sizes.scalar_one() / 2**20))
        known = [tuple(row) for row in await run(_SOME.format(min(100, 2_000_000 / accounts)))]
        chance = random.Random(8)  # noqa: S311  no secret
        for table in ("linked_accounts", "parted"):
            for what, where in {
                "an owner's list": "owner_id = '{1}' ORDER BY account_id LIMIT 51",
                "one account": "account_id = '{0}'",
                "a page of all accounts": "account_id > '{0}' ORDER BY account_id LIMIT 51",
                "due accounts": "refresh_due_at < now() ORDER BY refresh_due_at LIMIT 20",
            }.items():
                planned, took = [], []
                for _ in range(_TIMES):
                    asked = where.format(*chance.choice(known))
                    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {table} WHERE {asked}"  # noqa: S608
                    plan = (await run(explained)).scalar_one()[0]
                    planned.append(plan["Planning Time"])
                    took.append(plan["Execution Time"])
                say(
                    table=table,
                    what=what,
                    planning_ms=round(statistics.median(planned), 3),
                    execution_ms=round(statistics.median(took), 3),
                    buffers=plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"],
                )


async def bench(database_url: str, accounts: int) -> None:
    """Fill, weigh, ask, and lay into partitions."""
    settings = settings_for(
        database_url=database_url,
        stackone_url="http://127.0.0.1:9",
        issuer="http://127.0.0.1:9",
        database={"url": database_url, "statement_timeout_seconds": 300},
    )
    async with open_runtime(settings) as runtime:
        await fill(runtime, accounts)
        await weigh(runtime)
        await ask_everything(runtime, accounts)
        await lay_into_partitions(runtime, accounts)


if __name__ == "__main__":
    configure_logs("ERROR")
    migrate(sys.argv[1])
    asyncio.run(bench(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 10_000_000))
