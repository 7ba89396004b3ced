"""What a real PostgreSQL says when it refuses, and what the broker makes of it."""

import asyncio
import io
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.database import Database
from app.db.engine import open_engine
from app.db.failures import DatabaseUnavailable
from app.logs import configure_logs
from sandbox.stackone.signing import sign
from tests.neighbours.authority import Authority
from tests.neighbours.postgresql import DATABASE, PASSWORD, ROLE, OwnPostgresql
from tests.support.databases import settings_of
from tests.support.environment import environment_of
from tests.support.programs import give
from tests.support.waiting import eventually
from tests.support.world import WEBHOOK_SECRET, World, open_world

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600),
    # The driver leaves the sockets of connections that the server cut to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# Its deadline is 3 s; the rest is for a busy machine.
READYZ_SECONDS = 3.5
IMPATIENT = {"pool_size": 5, "pool_timeout_seconds": 2, "statement_timeout_seconds": 2}
Trouble = Callable[[OwnPostgresql], AbstractContextManager[None]]


def trouble(before: tuple[str, ...], after: tuple[str, ...], *, cut: bool, database: str = "postgres") -> Trouble:
    """Make trouble by SQL of the superuser, and end it."""

    @contextmanager
    def made(server: OwnPostgresql) -> Iterator[None]:
        server.sql(*before, database=database)
        if cut:
            server.cut()
        try:
            yield
        finally:
            server.sql(*after, database=database)

    return made


def failing(code: str) -> Trouble:
    """Have every write to the ledger fail with a code that is hard to bring about here."""
    function = f"BEGIN RAISE EXCEPTION 'told to' USING ERRCODE = '{code}'; END"
    return trouble(
        (
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {function} $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON connect_sessions FOR EACH ROW EXECUTE FUNCTION refuse()",
        ),
        ("DROP TRIGGER refuse ON connect_sessions", "DROP FUNCTION refuse()"),
        cut=False,
        database=DATABASE,
    )


_DEADLOCK = """
BEGIN; SET LOCAL deadlock_timeout = '1h'; LOCK TABLE connect_sessions; SELECT 'done';
DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'connect_sessions'::regclass) LOOP
PERFORM pg_sleep(0.01); END LOOP; END $$;
LOCK TABLE owners"""


@contextmanager
def deadlock(server: OwnPostgresql) -> Iterator[None]:
    """Hold what a mint wants, and want what it holds by then; the mint is the one that notices."""
    with server.session(DATABASE, _DEADLOCK):
        yield


@contextmanager
def missing_database(server: OwnPostgresql) -> Iterator[None]:
    server.sql(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
    server.cut()
    server.sql(f"ALTER DATABASE {DATABASE} RENAME TO elsewhere")
    try:
        yield
    finally:
        server.sql(
            f"ALTER DATABASE elsewhere RENAME TO {DATABASE}", f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true"
        )


@contextmanager
def stopped(server: OwnPostgresql) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def locked_table(server: OwnPostgresql) -> Iterator[None]:
    with server.session(DATABASE, "BEGIN; LOCK TABLE connect_sessions"):
        yield


@contextmanager
def impatient_lock(server: OwnPostgresql) -> Iterator[None]:
    patient = trouble(
        (f"ALTER ROLE {ROLE} SET lock_timeout = '200ms'",), (f"ALTER ROLE {ROLE} RESET lock_timeout",), cut=True
    )
    with patient(server), locked_table(server):
        yield
    server.cut()


@contextmanager
def stopping(server: OwnPostgresql) -> Iterator[None]:
    """Have it wait for one last session, and take no other."""
    try:
        with server.session(DATABASE, "SELECT 1"):
            server.cut()
            server.stop(signal.SIGTERM, wait=False)
            yield
    finally:
        server.wait()
        server.start()


def configured(**changes: object) -> Trouble:
    """Change the server's own settings, and take that back."""

    @contextmanager
    def made(server: OwnPostgresql) -> Iterator[None]:
        before = {name: server.sql(f"SHOW {name}") for name in changes}
        configure(server, changes)
        server.cut()
        try:
            yield
        finally:
            configure(server, before)

    return made


def configure(server: OwnPostgresql, settings: Mapping[str, object]) -> None:
    server.sql(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()), "SELECT pg_reload_conf()")


@contextmanager
def foreign_certificate(server: OwnPostgresql) -> Iterator[None]:
    certificate, key = Authority(server.directory, "strange").issue("strange", "localhost")
    give(server.directory)
    with configured(ssl_cert_file=certificate, ssl_key_file=key)(server):
        yield


@dataclass(frozen=True)
class Case:
    """One kind of trouble, and how it shows."""

    make: Trouble
    cause: str
    code: str | None
    words: Mapping[str, str] = field(default_factory=dict)
    """What the URL says besides; {ca} is the authority's file."""
    is_ready: bool = False
    """Whether /readyz cannot know: it writes nothing."""
    is_named: bool = True
    """Whether cause and code do not depend on the moment: a server that ends says this or that."""


CASES = {
    "wrong password": Case(
        trouble((f"ALTER ROLE {ROLE} PASSWORD 'another'",), (f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'",), cut=True),
        "credentials",
        "28P01",
    ),
    "locked role": Case(
        trouble((f"ALTER ROLE {ROLE} NOLOGIN",), (f"ALTER ROLE {ROLE} LOGIN",), cut=True), "credentials", "28000"
    ),
    "renamed role": Case(
        trouble((f"ALTER ROLE {ROLE} RENAME TO gone",), (f"ALTER ROLE gone RENAME TO {ROLE}",), cut=True),
        "credentials",
        "28P01",
    ),
    "missing database": Case(missing_database, "missing_database", "3D000"),
    "read-only": Case(
        trouble(
            (f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",),
            (f"ALTER ROLE {ROLE} RESET default_transaction_read_only",),
            cut=True,
        ),
        "read_only",
        "25006",
    ),
    "no permission": Case(
        trouble(
            (f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}",),
            (f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}",),
            cut=False,
            database=DATABASE,
        ),
        "permission",
        "42501",
    ),
    "out of connections": Case(
        trouble((f"ALTER ROLE {ROLE} CONNECTION LIMIT 0",), (f"ALTER ROLE {ROLE} CONNECTION LIMIT -1",), cut=True),
        "too_many_connections",
        "53300",
    ),
    "a table is missing": Case(
        trouble(
            ("ALTER TABLE connect_sessions RENAME TO elsewhere",),
            ("ALTER TABLE elsewhere RENAME TO connect_sessions",),
            cut=False,
            database=DATABASE,
        ),
        "schema",
        "42P01",
        is_ready=True,
    ),
    "a lock is held": Case(locked_table, "statement_timeout", "57014", is_ready=True),
    "a lock is held, and the role is told not to wait": Case(impatient_lock, "lock_timeout", "55P03", is_ready=True),
    "full disk": Case(failing("53100"), "disk_full", "53100", is_ready=True),
    "a deadlock": Case(deadlock, "conflict", "40P01", is_ready=True),
    "its certificate is of somebody else": Case(
        foreign_certificate, "tls", None, words={"sslmode": "verify-ca", "sslrootcert": "{ca}"}
    ),
    "speaks no TLS any more": Case(configured(ssl="off"), "no_tls", None, words={"sslmode": "require"}),
    "stopping": Case(stopping, "stopping", "57P03"),
    "stopped": Case(stopped, "unreachable", None, is_named=False),
    "hangs": Case(OwnPostgresql.paused, "unreachable", None, is_named=False),
}
# The table of docs/behaviour.md: by cause, what callers are told and what /readyz says.
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "behaviour.md").read_text()
[TABLE] = re.findall(r"^\| PostgreSQL \|.*?(?=\n\n)", PAGE, re.DOTALL | re.MULTILINE)
TOLD = {
    cells[2].strip("`"): (cells[3], cells[4])
    for cells in ([cell.strip() for cell in line.split("|")] for line in TABLE.splitlines()[2:])
}


def test_every_cause_that_the_page_names_is_brought_about() -> None:
    # A real PgBouncer is in test_pgbouncer.
    assert TOLD.keys() == {*(case.cause for case in CASES.values()), "pool_exhausted", "pooler"}


@asynccontextmanager
async def broker_on(
    server: OwnPostgresql, words: Mapping[str, str] | None = None, database: Mapping[str, Any] | None = None
) -> AsyncIterator[World]:
    """Open the broker on it, without loops that would add lines to the log."""
    filled = {name: value.format(ca=server.authority.file) for name, value in (words or {}).items()}
    url = server.url(words=filled)
    async with open_world(url, database=database or IMPATIENT, sync={"enabled": False}) as opened:
        yield opened


@pytest.fixture
async def world(postgresql: OwnPostgresql) -> AsyncIterator[World]:
    """Open the broker on it."""
    async with broker_on(postgresql) as opened:
        yield opened


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """Return what the process writes to its log."""
    stream = io.StringIO()
    configure_logs("INFO", stream=stream)
    yield stream
    configure_logs("INFO")


def lines_of(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


async def mint(world: World) -> Any:
    return await world.broker.post("/v1/connect-sessions", json={"provider": "bamboohr"}, headers=world.as_user())


async def cut_noticed() -> None:
    """Let the loop look at its sockets: `cut` has kept it from that, and no other process could."""
    await asyncio.sleep(0.01)


async def is_well(world: World) -> bool:
    return (await mint(world)).status_code == 201 and (await world.broker.get("/readyz")).status_code == 200


@pytest.mark.parametrize("name", CASES)
async def test_a_database_that_refuses_is_named_everywhere_and_recovers_by_itself(
    postgresql: OwnPostgresql, said: io.StringIO, name: str
) -> None:
    case = CASES[name]
    async with broker_on(postgresql, case.words) as world:
        assert (await mint(world)).status_code == 201
        with case.make(postgresql):
            await cut_noticed()
            if name == "read-only":
                # The change ends open connections; whoever meets one of them is told that, and the next is told why.
                await mint(world)
            await check_what_is_told(case, world, said)
        await eventually(lambda: is_well(world), within=20)


async def check_what_is_told(case: Case, world: World, said: io.StringIO) -> None:
    """Compare answer, log line, metric and /readyz with the page."""
    detail, readyz = TOLD[case.cause]
    said.seek(0)
    said.truncate()
    answer = await mint(world)
    [line] = [line for line in lines_of(said) if line["event"] == "database_unavailable"]
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert (line["cause"], line["sqlstate"]) == (case.cause, case.code) or not case.is_named
    assert answer.json()["detail"] == detail or not case.is_named
    began = time.monotonic()
    ready = await world.broker.get("/readyz")
    assert time.monotonic() - began < READYZ_SECONDS
    assert ready.status_code == (200 if case.is_ready else 503), ready.text
    assert str(ready.status_code) in readyz
    assert ready.json()["checks"]["database"] == ("ok" if case.is_ready else detail) or not case.is_named
    assert not [line for line in lines_of(said) if line["level"] in {"error", "critical"} or "exception" in line]
    assert PASSWORD not in answer.text + ready.text + said.getvalue()
    counted = world.runtime.metrics.registry.get_sample_value(
        "broker_database_failures_total", {"cause": line["cause"]}
    )
    assert counted


async def test_a_process_that_uses_all_of_its_connections_says_so(postgresql: OwnPostgresql, said: io.StringIO) -> None:
    small = {"pool_size": 1, "pool_overflow": 0, "pool_timeout_seconds": 0.5, "statement_timeout_seconds": 30}
    async with broker_on(postgresql, database=small) as world:
        with locked_table(postgresql):
            waiting = asyncio.create_task(mint(world))
            await eventually(lambda: is_waiting(postgresql), within=10)
            await check_what_is_told(Case(locked_table, "pool_exhausted", None), world, said)
        assert (await waiting).status_code == 201
        await eventually(lambda: is_well(world), within=20)


async def is_waiting(server: OwnPostgresql) -> bool:
    return server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == "1"


@dataclass(frozen=True)
class Repeated:
    """A request that finds its work done when it comes again."""

    method: str
    path: str
    written: str
    """What tells by a count that the first one has written something."""
    body: Mapping[str, object] | None = None
    before: tuple[str, ...] = ()
    by_user: bool = False


async def ask(world: World, what: Repeated) -> Any:
    if what.path.startswith("/v1/webhooks"):
        body = json.dumps(what.body).encode()
        headers = {"x-stackone-signature": sign(body, WEBHOOK_SECRET), "content-type": "application/json"}
        return await world.broker.post(what.path, content=body, headers=headers)
    headers = world.as_user() if what.by_user else world.as_service()
    return await world.broker.request(what.method, what.path, json=what.body, headers=headers)


@contextmanager
def without_standby(server: OwnPostgresql) -> Iterator[None]:
    """Have every commit wait for a standby that is not there; whose wait is ended leaves what everybody sees."""
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'a_standby'", "SELECT pg_reload_conf()")
    try:
        assert server.sql("SHOW synchronous_standby_names") == "a_standby"
        yield
    finally:
        server.sql("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


EVENT = {"event": "account.created", "account_id": "an-account", "sent_at": "now"}
REPEATED = {
    "an event": Repeated(
        "POST",
        "/v1/webhooks/stackone",
        "SELECT count(*) FROM account_events WHERE account_id = 'an-account'",
        {"event": "account.created", "account_id": "an-account", "sent_at": "now"},
    ),
    "a sweep": Repeated("POST", "/v1/sync", "SELECT count(*) FROM sweeps WHERE finished_at IS NULL"),
    "a disconnect": Repeated(
        "DELETE",
        "/v1/linked-accounts/{account}",
        "SELECT count(disconnect_requested_at) FROM linked_accounts WHERE account_id = '{account}'",
        by_user=True,
    ),
    # Each reads the account at StackOne, under a number of its own.
    "a confirm": Repeated("POST", "/v1/linked-accounts/{account}/confirm", "SELECT 1", by_user=True),
    "an erasure": Repeated(
        "DELETE", "/v1/owners/org_acme", "SELECT count(*) FROM erasures WHERE owner_id = 'org_acme'"
    ),
    "a name": Repeated(
        "PUT", "/v1/owners/org_new/name", "SELECT count(*) FROM owners WHERE owner_id = 'org_new'", {"name": "New"}
    ),
    "the end of a session": Repeated(
        "DELETE",
        "/v1/owners/org_acme/connect-sessions/{session}",
        "SELECT count(ended_as) FROM connect_sessions WHERE id = '{session}'",
    ),
    "the end of an invitation": Repeated(
        "DELETE",
        "/v1/owners/org_acme/invitations/{invitation}",
        "SELECT count(ended_at) FROM invitations WHERE id = '{invitation}'",
    ),
    "a replay": Repeated(
        "POST",
        "/v1/push/destinations/crm/replay",
        "SELECT count(*) FROM push_deliveries WHERE state = 'pending'",
        before=(
            "INSERT INTO push_destinations VALUES ('crm', 1)",
            "INSERT INTO push_deliveries VALUES ('crm', 1, 'an-account', 'dead', 0, now())",
        ),
    ),
}


@pytest.mark.parametrize("name", REPEATED)
async def test_what_no_standby_has_is_not_acknowledged_the_second_time_either(
    postgresql: OwnPostgresql, world: World, name: str
) -> None:
    account_id = await world.link()
    confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user())
    session = await world.mint("alice", {"provider": "hibob"})
    invited = await world.broker.post("/v1/owners/org_acme/invitations", json={}, headers=world.as_service())
    assert (confirmed.status_code, session.status_code, invited.status_code) == (200, 201, 201)
    names = {"account": account_id, "session": session.json()["id"], "invitation": invited.json()["id"]}
    what = REPEATED[name]
    what = replace(what, path=what.path.format(**names), written=what.written.format(**names))
    for statement in what.before:
        postgresql.sql(statement, database=DATABASE)

    async def is_written() -> bool:
        return postgresql.sql(what.written, database=DATABASE) == "1"

    with without_standby(postgresql):
        assert (await ask(world, what)).status_code == 503
        postgresql.cut()
        await eventually(is_written, within=30)
        assert (await ask(world, what)).status_code == 503

    async def acknowledged() -> bool:
        return bool((await ask(world, what)).is_success)

    await eventually(acknowledged, within=30)


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (("service-keys", "revoke"), "SELECT count(*) FROM service_keys WHERE revoked_at IS NOT NULL"),
        (("owners", "import"), "SELECT count(*) FROM owners WHERE owner_id = 'org_imported'"),
    ],
)
async def test_no_command_says_of_it_that_it_is_done(
    postgresql: OwnPostgresql, world: World, tmp_path: Path, arguments: tuple[str, ...], written: str
) -> None:
    table = tmp_path / "owners.csv"
    table.write_text("owner_id,name,account_ids\norg_imported,New,\n")
    key_id = postgresql.sql("SELECT key_id FROM service_keys ORDER BY created_at DESC LIMIT 1", database=DATABASE)
    arguments = (*arguments, str(table) if arguments[0] == "owners" else key_id)
    impatient = {"BROKER_DATABASE__STATEMENT_TIMEOUT_SECONDS": "2"}

    async def is_written() -> bool:
        return postgresql.sql(written, database=DATABASE) == "1"

    with without_standby(postgresql):
        first = await broker(postgresql.url(), world, *arguments, **impatient)
        postgresql.cut()
        await eventually(is_written, within=30)
        second = await broker(postgresql.url(), world, *arguments, **impatient)
    for status, said in (first, second):
        assert (status, "database" in said.lower()) == (1, True), said
    last = await broker(postgresql.url(), world, *arguments, **impatient)
    assert last[0] == 0 or "no active key has this id" in last[1], last


async def broker(url: str, world: World, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command; return its status and all that it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment_of(world) | {"BROKER_DATABASE__URL": url} | environment,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("wrong password", "check the user and password"),
        ("missing database", "create it"),
        ("read-only", "name the primary"),
        ("no permission", "GRANT the role"),
        ("out of connections", "raise max_connections"),
        ("stopped", "check that it is up"),
    ],
)
async def test_commands_say_cause_and_remedy_in_one_sentence(
    postgresql: OwnPostgresql, world: World, name: str, remedy: str
) -> None:
    case = CASES[name]
    detail, _ = TOLD[case.cause]
    with case.make(postgresql):
        for arguments in (("accounts", "list", "--owner", "org_acme"), ("migrate",), ("doctor", "--json")):
            status, said = await broker(postgresql.url(), world, *arguments)
            # Nothing there needs to be written: reading works, and there is nothing to migrate.
            if name == "read-only" and arguments[0] != "doctor":
                assert status == 0, said
                continue
            assert status == 1, (arguments, said)
            assert "Traceback" not in said
            assert PASSWORD not in said
            if arguments[0] == "doctor":
                [found] = [each for each in json.loads(said)["findings"] if each["subject"] == "database"]
                assert (found["state"], found["detail"]) == ("broken", detail)
                assert remedy in found["remedy"]
            else:
                assert len(said.strip().splitlines()) == 1, said
                assert detail in said
                assert remedy.lower() in said.lower()


async def test_a_changed_password_is_read_from_the_secrets_folder(
    postgresql: OwnPostgresql, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "BROKER_DATABASE__URL").write_text(f"{postgresql.url()}\n")
    monkeypatch.setenv("BROKER_SECRETS_DIR", str(tmp_path))
    async with open_world(postgresql.url(), database=IMPATIENT, sync={"enabled": False}) as world:
        change = trouble(
            (f"ALTER ROLE {ROLE} PASSWORD 'rotated'",), (f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'",), cut=True
        )
        with change(postgresql):
            await cut_noticed()
            assert (await mint(world)).status_code == 503
            (tmp_path / "BROKER_DATABASE__URL").write_text(f"{postgresql.url(password='rotated')}\n")
            assert (await mint(world)).status_code == 201
            postgresql.cut()
            await cut_noticed()
            assert (await mint(world)).status_code == 201, "the new one is kept"


@pytest.mark.parametrize(
    ("words", "host", "failure"),
    [
        ({"sslmode": "disable"}, "127.0.0.1", None),
        ({"sslmode": "allow"}, "127.0.0.1", None),
        ({"sslmode": "prefer"}, "127.0.0.1", None),
        ({"sslmode": "require"}, "127.0.0.1", None),
        ({"sslmode": "verify-ca", "sslrootcert": "{ca}"}, "127.0.0.1", None),
        ({"sslmode": "verify-full", "sslrootcert": "{ca}"}, "localhost", None),
        ({"sslmode": "verify-full", "sslrootcert": "{ca}"}, "127.0.0.1", "the database's certificate is not accepted"),
        ({"sslmode": "verify-full"}, "localhost", "the database's certificate is not accepted"),
        ({"sslmode": "verify-ca"}, "localhost", "the database's certificate is not accepted"),
        ({"sslmode": "require", "sslrootcert": "{other}"}, "localhost", "the database's certificate is not accepted"),
        (
            {"channel_binding": "prefer", "connect_timeout": "3", "application_name": "x", "options": "-c geqo=off"},
            "127.0.0.1",
            None,
        ),
    ],
)
async def test_every_sslmode_does_what_it_says(
    postgresql: OwnPostgresql, words: dict[str, str], host: str, failure: str | None
) -> None:
    other = Authority(postgresql.directory, "other")
    filled = {name: value.format(ca=postgresql.authority.file, other=other.file) for name, value in words.items()}
    found = await connection_facts(postgresql.url(host=host, words=filled))
    if failure is not None:
        assert found == failure
        return
    assert isinstance(found, dict)
    expected = {"disable": False, "allow": False}.get(words.get("sslmode", "prefer"), True)
    assert found["ssl"] is expected
    if "options" in words:
        assert (found["geqo"], found["name"]) == ("off", "x")
    assert found["timeout"] == "10s"


async def test_a_client_certificate_is_a_credential(postgresql: OwnPostgresql) -> None:
    postgresql.sql("GRANT CONNECT ON DATABASE broker TO certified")
    certificate, key = postgresql.authority.issue("certified")
    words = {"sslmode": "require", "sslcert": str(certificate), "sslkey": str(key)}
    found = await connection_facts(postgresql.url(user="certified", password="", words=words))
    assert isinstance(found, dict), found
    refused = await connection_facts(postgresql.url(user="certified", password="", words={"sslmode": "require"}))
    assert refused == "the database refuses the broker's credentials"


async def test_of_several_hosts_the_one_that_takes_writes_is_used(postgresql: OwnPostgresql) -> None:
    dead = "127.0.0.1:1"
    url = postgresql.url(words={"sslmode": "disable", "target_session_attrs": "read-write"}).replace("@", f"@{dead},")
    assert isinstance(await connection_facts(url), dict)
    with CASES["read-only"].make(postgresql):
        refused = await connection_facts(postgresql.url(words={"target_session_attrs": "read-write"}))
    assert refused == "the database is read-only"


async def connection_facts(url: str) -> dict[str, Any] | str:
    """Connect as the broker does; return what the server knows of the connection, or how it failed."""
    database = Database(open_engine(settings_of(url)))
    query = sa.text(
        "SELECT ssl, current_setting('application_name') AS name, current_setting('geqo') AS geqo,"
        " current_setting('statement_timeout') AS timeout FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    )
    try:
        async with database.reading() as connection:
            return dict((await connection.execute(query)).mappings().one())
    except DatabaseUnavailable as error:
        return error.failure.detail
    finally:
        await database.close()
