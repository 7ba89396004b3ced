"""What is measured, and how: each job takes the plan and returns a table."""

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from bench import flame
from bench.field import NEEDS, Field, Served, open_field
from bench.load import Spread, Turn, load
from bench.machine import LOAD_CORES, SERVER_CORE, cpu_seconds, free_port, memory_mib, pinned, running
from tests.support.databases import PostgresqlDatabases, SqliteDatabases, postgresql_server

CONNECTIONS = 16
_PEERS = ("broker", "textbook", "express")
_WIRES = ("bare-httpx2", "bare-aiohttp", "nginx")
# The requests, and who takes part: a contender without a store can only pass a mint on.
REQUESTS: Mapping[str, Sequence[str]] = {
    "mint": (*_PEERS, *_WIRES),
    "list": _PEERS,
    "get": _PEERS,
    "confirm": _PEERS,
    "webhook": _PEERS,
    "webhook repeated": _PEERS,
    "events": ("broker",),
}
_STACKONE_MS = 150
# Far more than a loop's timers are wrong by.
_DISTANCE_MS = 5
# As many connections as a load of one address opens at once without being a crowd.
_WARMING = 100
_SLOW_WIRES = ("broker", "express", "bare-httpx2", "bare-aiohttp")


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    seconds: float
    rounds: int
    quick: bool
    deadline: float
    accounts: Sequence[int] = ()
    """Sizes of the stores that are swept and read; empty for the usual ones."""

    @property
    def is_over(self) -> bool:
        """Tell whether the time is up."""
        return time.monotonic() > self.deadline


@dataclass
class Table:
    """What a job found."""

    job: str
    title: str
    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bars: dict[str, float] = field(default_factory=dict)
    """CPU of the server per request, in microseconds, for the picture."""
    images: dict[str, str] = field(default_factory=dict)
    """Pictures of its own, by the names of their files."""


def progress(text: str) -> None:
    """Say what goes on."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Make an empty database with the newest schema, and remove it afterwards."""
    with TemporaryDirectory(prefix="bench-") as directory:
        if kind == "sqlite":
            yield SqliteDatabases(Path(directory)).create()
            return
        with postgresql_server(Path(directory)) as server:
            databases = PostgresqlDatabases(server, "bench")
            try:
                yield databases.create()
            finally:
                databases.close()


@contextmanager
def _field(kind: str = "postgresql", *, delay_ms: float = 0) -> Iterator[Field]:
    with (
        database(kind) as url,
        TemporaryDirectory(prefix="bench-") as folder,
        open_field(Path(folder), url, delay_ms=delay_ms) as opened,
    ):
        yield opened


def _able(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in NEEDS or NEEDS[name][0]()]


def _figure(values: Sequence[float], digits: int = 0) -> str:
    spread = Spread.of(values)
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f} to {spread.most:,.{digits}f})"


def requests(plan: Plan, chosen: Sequence[str], kind: str = "postgresql") -> list[Table]:
    """Have every contender answer every kind of request, one after the other, again and again."""
    turns: dict[tuple[str, str], list[Turn]] = defaultdict(list)
    names = _able(list(dict.fromkeys(name for job in chosen for name in REQUESTS[job])))
    if kind == "sqlite":
        names = [name for name in names if name in {"broker", "express"}]
    with _field(kind) as place, ExitStack() as stack:
        up = {name: stack.enter_context(place.serving(name)) for name in names}
        # The first round fills caches and pools; whoever is in a hurry does without.
        for number in range(1 if plan.quick else 0, plan.rounds + 1):
            for job in chosen:
                if plan.is_over and number > 1:
                    progress("the time is up")
                    break
                progress(f"{kind}: {job}, round {number} of {plan.rounds}")
                for name in (name for name in names if name in REQUESTS[job]):
                    seconds = plan.seconds if number else 1
                    served, file = up[name], place.requests(job)
                    turn = load(served.port, served.pid, file, connections=CONNECTIONS, seconds=seconds)
                    if number:
                        turns[job, name].append(turn)
    return [_request_table(job, kind, {name: turns[job, name] for name in names if turns[job, name]}) for job in chosen]


def _request_table(job: str, kind: str, turns: Mapping[str, Sequence[Turn]]) -> Table:
    where = "" if kind == "postgresql" else " on SQLite"
    head = ("", "CPU of a request, us", "requests/s", "p50 ms", "p99 ms", "MiB", "failed")
    table = Table(job, f"{job}{where}, {CONNECTIONS} connections", head)
    for name, mine in turns.items():
        table.rows.append(
            (
                name,
                _figure([turn.cpu_us for turn in mine]),
                _figure([turn.rate for turn in mine]),
                _figure([turn.p50_ms for turn in mine], 1),
                _figure([turn.p99_ms for turn in mine], 1),
                f"{mine[-1].memory_mib:.0f}",
                str(sum(turn.failed for turn in mine)),
            )
        )
        table.bars[name] = statistics.median(turn.cpu_us for turn in mine)
    return table


def latency(plan: Plan) -> list[Table]:
    """See what is added to a StackOne that takes its time."""
    head = ("", "in flight", "added p50 ms", "added p99 ms", "requests/s", "failed", "of", "MiB more")
    table = Table("latency", f"Mint with a StackOne that takes {_STACKONE_MS} ms", head)
    with _field(delay_ms=_STACKONE_MS) as place:
        for name in _able(
            ("broker", "express") if plan.quick else ("broker", "express", "bare-httpx2", "bare-aiohttp")
        ):
            with place.serving(name) as served:
                load(served.port, served.pid, place.requests("mint"), connections=4, seconds=1)
                before = memory_mib(served.pid)
                for in_flight in (1, 100, 1000):
                    progress(f"latency: {name}, {in_flight} in flight")
                    # Long enough for those that give up to be seen giving up.
                    seconds = 25 if in_flight > 100 and not plan.quick else max(3, plan.seconds)  # noqa: PLR2004
                    file = place.requests("mint")
                    load(served.port, served.pid, file, connections=min(in_flight, _WARMING), seconds=2)
                    # The connections of before are closed, and not counted for a thousand more.
                    time.sleep(1)
                    turn = load(served.port, served.pid, file, connections=in_flight, seconds=seconds)
                    added = (f"{turn.p50_ms - _STACKONE_MS:.1f}", f"{turn.p99_ms - _STACKONE_MS:.1f}")
                    figures = (f"{turn.rate:.0f}", str(turn.failed), str(turn.requests))
                    table.rows.append((name, str(in_flight), *added, *figures, f"{turn.memory_mib - before:.0f}"))
    table.notes.append("Each line after two seconds of the same load, with at most a hundred in flight.")
    return [table]


def accounts(plan: Plan) -> list[Table]:
    """See what a full store costs."""
    sizes = plan.accounts or ((1_000, 100_000) if plan.quick else (1_000, 100_000, 1_000_000))
    head = ("", "accounts", "CPU of a request, us", "requests/s", "p99 ms")
    table = Table("accounts", "The broker over stores of different sizes", head)
    with _field() as place:
        for size in sizes:
            progress(f"accounts: {size}")
            place.fill(size)
            with place.serving("broker") as served:
                for job in ("list", "get", "webhook"):
                    file = place.requests(job)
                    load(served.port, served.pid, file, connections=CONNECTIONS, seconds=1)
                    mine = [
                        load(served.port, served.pid, file, connections=CONNECTIONS, seconds=plan.seconds)
                        for _ in range(1 if plan.quick else min(2, plan.rounds))
                    ]
                    figures = (_figure([turn.cpu_us for turn in mine]), _figure([turn.rate for turn in mine]))
                    table.rows.append((job, f"{size:,}", *figures, f"{max(turn.p99_ms for turn in mine):.1f}"))
    return [table]


def distance(plan: Plan) -> list[Table]:
    """Put some milliseconds each way between the broker and its database, and see how often they are paid."""
    head = ("", "p50 ms", f"p50 ms, {_DISTANCE_MS} ms each way to the database", "more", "paid so often")
    table = Table("distance", f"One request at a time, and a database that is {_DISTANCE_MS} ms away", head)
    with _field() as place:
        port, folder = free_port(), place.folder
        command = [sys.executable, "-m", "bench.distance", str(port), str(_DISTANCE_MS), place.database_url]
        far = urlsplit(place.database_url)._replace(netloc=f"postgres@127.0.0.1:{port}", query="").geturl()
        with (
            running(command, port, cores=LOAD_CORES, env={}, log=folder / "distance.log"),
            place.serving("broker") as near,
            place.serving("broker", BROKER_DATABASE__URL=far) as away,
        ):
            for job in ("mint", "list", "get", "confirm", "webhook"):
                progress(f"distance: {job}")
                file = place.requests(job)
                here, there = (
                    load(served.port, served.pid, file, connections=1, seconds=max(2, plan.seconds)).p50_ms
                    for served in (near, away)
                )
                more = there - here
                table.rows.append((job, f"{here:.1f}", f"{there:.1f}", f"{more:.1f}", f"{more / 2 / _DISTANCE_MS:.1f}"))
    return [table]


def replicas(plan: Plan) -> list[Table]:
    """Let two replicas share a database, and see whether they wait for each other."""
    head = ("", "replicas", "CPU of a request, us", "requests/s, both", "p99 ms")
    table = Table("replicas", "One broker, and two over the same database", head)
    table.notes.append("Both run on the server's core: what counts is that a request costs no more CPU.")
    with _field() as place, place.serving("broker") as one, place.serving("broker-2") as two:
        for job in ("mint", "list", "webhook"):
            progress(f"replicas: {job}")
            file = place.requests(job)
            for served in ([one], [one, two]):
                turns = _at_once(served, file, plan.seconds)
                cpu = sum(turn.cpu_us * turn.requests for turn in turns) / max(1, sum(turn.requests for turn in turns))
                rate, slowest = sum(turn.rate for turn in turns), max(turn.p99_ms for turn in turns)
                table.rows.append((job, str(len(served)), f"{cpu:.0f}", f"{rate:.0f}", f"{slowest:.1f}"))
    return [table]


def _at_once(replicas: Sequence[Served], file: Path, seconds: float) -> list[Turn]:
    connections = CONNECTIONS // len(replicas)

    def run(served: Served) -> Turn:
        return load(served.port, served.pid, file, connections=connections, seconds=seconds)

    with ThreadPoolExecutor(len(replicas)) as threads:
        list(threads.map(run, replicas))
        return list(threads.map(run, replicas))


def refresh(plan: Plan) -> list[Table]:
    """Have accounts due, and see how soon and how cheaply they are read again."""
    head = ("accounts due", "CPU of an account, us", "accounts/s")
    table = Table("refresh", "Refresh of due accounts", head)
    many = 200 if plan.quick else 1000
    due = f"UPDATE linked_accounts SET refresh_due_at = now() WHERE account_id < 'acc{many:018}'"  # noqa: S608  a number
    cpu, rate = [], []
    with _field() as place, place.serving("broker", BROKER_SYNC__ENABLED="true") as served:
        for number in range(min(3, plan.rounds) + 1):
            progress(f"refresh: round {number}")
            before, started = cpu_seconds(served.pid), time.monotonic()
            place.run(due)
            while place.run("SELECT count(*) FROM linked_accounts WHERE refresh_due_at IS NOT NULL"):
                if time.monotonic() - started > 120:  # noqa: PLR2004  bounded, whatever happens
                    table.notes.append("Some were still due after two minutes.")
                    break
                time.sleep(0.2)
            if number:
                cpu.append((cpu_seconds(served.pid) - before) / many * 1e6)
                rate.append(many / (time.monotonic() - started))
    table.rows.append((f"{many:,}", _figure(cpu), _figure(rate)))
    table.bars["broker"] = statistics.median(cpu)
    return [table]


def sweep(plan: Plan) -> list[Table]:
    """Sweep stores of different sizes, with StackOne played inside the process."""
    head = ("database", "sweep", "accounts", "CPU of an account, us", "seconds", "statements an account", "MiB")
    table = Table("sweep", "Sweeps, StackOne's budget lifted", head)
    for kind in ("postgresql",) if plan.quick else ("postgresql", "sqlite"):
        with database(kind) as url:
            progress(f"sweep: {kind}")
            sizes = plan.accounts or ((5_000,) if plan.quick else (10_000, 100_000))
            command = pinned([sys.executable, "-m", "bench.sweep", url, *map(str, sizes)], [SERVER_CORE])
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)  # noqa: S603
            for line in done.stdout.splitlines():
                told = json.loads(line)
                cpu = f"{told['cpu_seconds'] / told['accounts'] * 1e6:.0f}"
                memory = f"{told['memory_mib_first_tenth']:.0f} to {told['memory_mib_last_tenth']:.0f}"
                figures = (f"{told['accounts']:,}", cpu, str(told["seconds"]), str(told["statements_per_account"]))
                table.rows.append((kind, told["sweep"], *figures, memory))
    return [table]


def idle(plan: Plan) -> list[Table]:
    """See what a broker costs that nobody asks anything, and how soon it is ready."""
    table = Table("idle", "Start, and doing nothing", ("", "start to ready, s", "MiB", "CPU, %", "transactions/s"))
    seconds = 5 if plan.quick else 30
    with _field() as place:
        for name in _able(("broker",) if plan.quick else _PEERS):
            progress(f"idle: {name}")
            starts = []
            for _ in range(1 if plan.quick else 3):
                with place.serving(name, BROKER_SYNC__ENABLED="true") as served:
                    starts.append(_ready(served, of_broker=name == "broker"))
            with place.serving(name, BROKER_SYNC__ENABLED="true") as served:
                time.sleep(3)
                transactions, cpu = _transactions(place), cpu_seconds(served.pid)
                time.sleep(seconds)
                cpu = (cpu_seconds(served.pid) - cpu) / seconds * 100
                # Asking is a transaction too.
                transactions = max(0, _transactions(place) - transactions - 1)
                memory = f"{memory_mib(served.pid):.0f}"
            figures = (memory, f"{cpu:.1f}", f"{transactions / seconds:.1f}")
            table.rows.append((name, _figure(starts, 2), *figures))
    return [table]


def _transactions(place: Field) -> int:
    # A server process tells its counts when it has been idle for a second.
    time.sleep(1.2)
    query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    return int(place.run(query))


def _ready(served: Served, *, of_broker: bool) -> float:
    started = time.monotonic()
    while of_broker and time.monotonic() - started < 10:  # noqa: PLR2004  bounded, whatever happens
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                break
        time.sleep(0.01)
    return served.start_seconds + time.monotonic() - started


def profile(plan: Plan) -> list[Table]:
    """See where the time of a mint and of a list goes."""
    jobs = ("mint", "list")
    table = Table("profile", "Where the broker's time goes", ("share of the samples", *jobs))
    if not flame.PY_SPY.exists():
        table.notes.append("Not measured: py-spy is not installed (`pip install py-spy`).")
        return [table]
    seconds = 6 if plan.quick else 30
    found: dict[str, Mapping[str, float]] = {}
    with _field() as place, place.serving("broker") as served, TemporaryDirectory(prefix="bench-") as folder:
        for job in jobs:
            progress(f"profile: {job}")
            file, output = place.requests(job), Path(folder) / job
            load(served.port, served.pid, file, connections=CONNECTIONS, seconds=2)
            sampling = flame.record(served.pid, seconds, output)
            load(served.port, served.pid, file, connections=CONNECTIONS, seconds=seconds + 1)
            sampling.wait(60)
            stacks = output.read_text(encoding="utf-8")
            found[job] = flame.shares(stacks)
            table.images[f"flame-{job}.svg"] = flame.draw(stacks, f"A {job}: what is called by what, by samples")
    layers = dict.fromkeys(name for job in jobs for name in found[job])
    table.rows = [(name, *(f"{found[job].get(name, 0):.1%}" for job in jobs)) for name in layers]
    table.notes.append("Sampling slows the broker down; what counts is the shares.")
    return [table]


def sqlite(plan: Plan) -> list[Table]:
    """Have the broker and Express answer over a SQLite file each, as durable as on PostgreSQL."""
    tables = []
    for table in requests(plan, ("mint", "list", "webhook"), "sqlite"):
        table.bars = {}
        table.job = "sqlite"
        tables.append(table)
    return tables


OTHERS: Mapping[str, Callable[[Plan], list[Table]]] = {
    "refresh": refresh,
    "sweep": sweep,
    "latency": latency,
    "accounts": accounts,
    "distance": distance,
    "replicas": replicas,
    "sqlite": sqlite,
    "idle": idle,
    "profile": profile,
}
