"""Behind Debian's PgBouncer as it is shipped, in both modes: nothing fails, and no two transactions are mixed up."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa
from alembic import command

from app.db.database import Database
from app.db.engine import open_engine
from app.db.failures import Cause, DatabaseUnavailable
from app.db.schema_version import alembic_config, known_revisions, stored_schema
from app.db.statements import Statement
from tests.neighbours.postgresql import DATABASE, PASSWORD, ROLE, OwnPostgresql, pgbouncer
from tests.neighbours.test_postgresql import TOLD
from tests.support.databases import settings_of
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


# What libpq's and the driver's users are told to have it pass over.
IGNORED = (
    "jit,statement_timeout,lock_timeout,idle_in_transaction_session_timeout,options,extra_float_digits,search_path"
)
PLENTY = {"requests_per_user": "100000/minute", "requests_per_owner": "100000/minute"}


@dataclass(frozen=True)
class Front:
    """A pooler in one of its modes."""

    server: OwnPostgresql
    port: int
    mode: str

    @property
    def url(self) -> str:
        """The URL that leads through it."""
        return self.server.url(port=self.port)


@pytest.fixture(params=["session", "transaction"])
def front(request: pytest.FixtureRequest, postgresql: OwnPostgresql, open_directory: Path) -> Iterator[Front]:
    """Put PgBouncer before the server."""
    with pgbouncer(postgresql, open_directory, request.param) as port:
        yield Front(postgresql, port, request.param)


@pytest.fixture
async def world(front: Front) -> AsyncIterator[World]:
    """Open the broker behind it, with all of its loops."""
    async with open_world(front.url, database={"pooler": front.mode, "pool_size": 5}, limits=PLENTY) as opened:
        yield opened


async def test_every_part_of_the_main_job_works_under_load(world: World) -> None:
    """Mint, confirm, list, get, feed, erase: 12 callers at once over 3 connections of PostgreSQL."""
    statuses: list[int] = []

    async def use(number: int) -> None:
        user = ("alice", "bob")[number % 2]
        as_user = world.as_user(user)
        for _ in range(3):
            minted = await world.broker.post(
                "/v1/connect-sessions", json={"provider": "hibob", "multiple": True}, headers=as_user
            )
            account_id = await world.link(user)
            confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=as_user)
            listed = await world.broker.get("/v1/linked-accounts", headers=as_user)
            got = await world.broker.get(f"/v1/linked-accounts/{account_id}", headers=as_user)
            fed = await world.broker.get("/v1/events?limit=5", headers=world.as_service())
            statuses.extend(answer.status_code for answer in (minted, confirmed, listed, got, fed))

    await asyncio.gather(*(use(number) for number in range(12)))
    assert set(statuses) == {200, 201}
    assert len(statuses) == 180
    assert (await world.broker.get("/readyz")).status_code == 200


async def test_what_arrays_hold_is_never_looked_up_with_a_compiler(front: Front, world: World) -> None:
    """The driver switches JIT off for it, which counts for the server that the pooler had it tell."""
    front.server.sql("ALTER SYSTEM SET log_statement = 'all'", "ALTER SYSTEM SET log_line_prefix = '@%p '")
    front.server.sql("SELECT pg_reload_conf()")
    # Connections that were there before have said nothing of what they did.
    front.server.cut()
    begin = (front.server.directory / "log").stat().st_size
    try:
        await test_every_part_of_the_main_job_works_under_load(world)
    finally:
        front.server.sql("ALTER SYSTEM RESET log_statement", "ALTER SYSTEM RESET log_line_prefix")
        front.server.sql("SELECT pg_reload_conf()")
    log = (front.server.directory / "log").read_text()[begin:]
    looked_up, is_off = 0, dict[str, bool]()
    for entry in re.findall(r"^@(\d+) LOG:  ((?:.+\n)(?:\t.*\n)*)", log, re.MULTILINE):
        process, said = entry
        if "set_config('jit'" in said:
            is_off[process] = "set_config('jit', 'off'" in said
        if "typeinfo_tree(" in said:
            looked_up += 1
            assert is_off.get(process), "looked up by a server that would compile it"
    assert looked_up


async def test_a_connection_that_is_lost_while_it_is_prepared_is_a_database_out_of_reach(
    postgresql: OwnPostgresql,
) -> None:
    """As a failover does it to those who come back first."""
    cut = asyncio.Event()

    async def relay(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", postgresql.port)

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while (data := await source.read(65536)) and b"bytea[]" not in data:
                target.write(data)
            if data:
                cut.set()

        def end(_task: asyncio.Task[None]) -> None:
            to_client.close()
            to_server.close()

        for task in [asyncio.create_task(pass_on(client, to_server)), asyncio.create_task(pass_on(server, to_client))]:
            task.add_done_callback(end)

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        database = Database(
            open_engine(settings_of(postgresql.url(port=port, words={"sslmode": "disable"}), pooler="transaction"))
        )
        try:
            with pytest.raises(DatabaseUnavailable) as lost:
                async with database.reading():
                    pass
            assert lost.value.failure.cause is Cause.UNREACHABLE
            with pytest.raises(DatabaseUnavailable) as lost:
                await database.fetch(Statement(sa.select(sa.literal(1))), {})
            assert lost.value.failure.cause is Cause.UNREACHABLE
            assert cut.is_set()
        finally:
            await database.close()


async def test_the_limits_of_a_transaction_hold_there(front: Front) -> None:
    database = Database(open_engine(settings_of(front.url, pooler=front.mode, statement_timeout_seconds=1)))
    try:
        async with database.transaction() as connection:
            limit = "SELECT current_setting('statement_timeout')"
            assert await connection.scalar(sa.text(limit)) == "1s"
            idle = "SELECT current_setting('idle_in_transaction_session_timeout')"
            assert await connection.scalar(sa.text(idle)) == "1s"
        with pytest.raises(DatabaseUnavailable) as slow:
            async with database.reading() as connection:
                await connection.execute(sa.text("SELECT pg_sleep(5)"))
        assert slow.value.failure.cause is Cause.STATEMENT_TIMEOUT
    finally:
        await database.close()


async def test_a_pooler_that_nobody_told_of_is_named(front: Front) -> None:
    database = Database(open_engine(settings_of(front.url)))
    try:
        with pytest.raises(DatabaseUnavailable) as refused:
            async with database.reading():
                pass
        assert refused.value.failure.cause is Cause.POOLER
        assert "BROKER_DATABASE__POOLER" in refused.value.failure.remedy
    finally:
        await database.close()


async def told_by(world: World) -> list[httpx2.Response]:
    """Return what 40 callers are told who read and write at once."""
    lists = (world.broker.get("/v1/linked-accounts", headers=world.as_user()) for _ in range(20))
    mints = (
        world.broker.post("/v1/connect-sessions", json={"multiple": True}, headers=world.as_user()) for _ in range(20)
    )
    return await asyncio.gather(*lists, *mints)


async def test_a_pooler_that_nobody_told_of_is_the_row_of_the_page(
    postgresql: OwnPostgresql, open_directory: Path
) -> None:
    """One that passes over what it does not know: a statement is prepared on one connection, and asked of another."""
    detail, readyz = TOLD["pooler"]
    with pgbouncer(postgresql, open_directory, "transaction", ignored=IGNORED) as port:
        url = postgresql.url(port=port)
        async with open_world(url, database={"pool_size": 5}, limits=PLENTY, sync={"enabled": False}) as world:
            refused: list[httpx2.Response] = []

            async def is_refused() -> bool:
                answers = await told_by(world)
                assert {answer.status_code for answer in answers} <= {200, 201, 503}
                refused.extend(answer for answer in answers if answer.status_code == 503)
                return bool(refused)

            await eventually(is_refused, within=20)
            assert {answer.json()["detail"] for answer in refused} == {detail}
            ready = await world.broker.get("/readyz")
            assert str(ready.status_code) in readyz
            assert ready.status_code == 200 or ready.json()["checks"]["database"] == detail
            count = world.runtime.metrics.registry.get_sample_value
            assert count("broker_database_failures_total", {"cause": "pooler"})
        async with open_world(url, database={"pool_size": 5, "pooler": "transaction"}, limits=PLENTY) as world:
            assert {answer.status_code for answer in await told_by(world)} == {200, 201}


async def test_a_word_in_the_url_is_enough(front: Front) -> None:
    if front.mode == "session":
        pytest.skip("pgbouncer=true means a transaction pooler, as everywhere")
    url = front.server.url(port=front.port, words={"pgbouncer": "true"})
    database = Database(open_engine(settings_of(url)))
    try:
        async with database.reading() as connection:
            assert await connection.scalar(sa.text("SELECT 1")) == 1
    finally:
        await database.close()


async def test_what_it_refuses_is_named_and_passes(front: Front, world: World) -> None:
    async def status() -> int:
        return (await world.broker.get("/v1/linked-accounts", headers=world.as_user())).status_code

    assert await status() == 200
    front.server.sql(f"ALTER ROLE {ROLE} NOLOGIN")
    front.server.cut()

    async def is_refused() -> bool:
        ready = await world.broker.get("/readyz")
        return ready.status_code == 503 and await status() == 503

    async def is_served() -> bool:
        ready = await world.broker.get("/readyz")
        return ready.status_code == 200 and await status() == 200

    await eventually(is_refused, within=20)
    front.server.sql(f"ALTER ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    # PgBouncer itself waits 15 s (server_login_retry) before it tries the server again.
    await eventually(is_served, within=40)


async def test_migrations_that_run_at_once_take_turns(front: Front) -> None:
    settings = settings_of(front.url, pooler=front.mode)
    await asyncio.to_thread(command.downgrade, alembic_config(settings), known_revisions()[0])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BROKER_")},
        "BROKER_DATABASE__URL": front.url,
        "BROKER_DATABASE__POOLER": front.mode,
    }
    # Processes, not threads: Alembic's environment is one a process.
    migrations = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "app", "migrate", env=environment) for _ in range(3)
    ]
    assert [await process.wait() for process in migrations] == [0, 0, 0]
    database = Database(open_engine(settings))
    try:
        async with database.reading() as connection:
            assert (await connection.run_sync(stored_schema)).revision == known_revisions()[-1]
    finally:
        await database.close()
    held = front.server.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", database=DATABASE)
    assert held == "0", "a lock was left with a connection of the pooler's"
