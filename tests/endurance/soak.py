"""Half an hour of everything that goes wrong: make soak, or python -m tests.endurance.soak --minutes 30.

Two replicas behind HAProxy, on a PostgreSQL and a Redis of their own, at 70 % of what they can do here. One thing after
the other goes wrong, in an order that a seed decides; the second replica is killed every minute, the first one lives
through the whole run and is what is measured. The run fails if anything acknowledged is missing at the end, if anything
but success, 429 and 503 with Retry-After was answered, if anything was refused while all was well, or if the memory,
sockets or tasks of the first replica have grown.
"""

import asyncio
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import aiohttp
import httpx2
import typer

from app.logs import configure_logs
from tests.endurance.faults import Neighbours
from tests.endurance.load import Kind, Load, Record, Refusal
from tests.endurance.picture import Curve, Panel, draw
from tests.endurance.stand import Stand, open_stand
from tests.endurance.telling import Bar, circumstances, leave_if_missing, table
from tests.endurance.truth import settle
from tests.neighbours.postgresql import OwnPostgresql
from tests.support.redis_server import RedisServer

KILL: Final = "a replica is killed"
NEEDS: Final = ("postgres", "psql", "haproxy", "faketime")
PICTURE: Final = Path(__file__).resolve().parents[2] / "docs/images/soak.svg"
_SHARE: Final = 0.7
_CAPACITY_SECONDS, _CAPACITY_WORKERS = 12.0, 24
_MIX: Final = {Kind.MINT: 4, Kind.LIST: 3, Kind.WEBHOOK: 3}
_MOST_IN_FLIGHT: Final = 200
_TICK_SECONDS: Final = 0.02
_FAULT_SECONDS: Final = (6.0, 12.0)
_MORE: Final = 15
_QUIET_WITHIN_SECONDS: Final = 120.0
# What was under way at the moment of a kill ends without an answer, or with half of one.
_CUT_OFF_SECONDS: Final = 2.0
_CALM_SECONDS: Final = 6.0
_KILL_EVERY_SECONDS: Final = 60.0
_BACK_WITHIN_SECONDS: Final = 60.0
_WEBHOOK_AGAIN_SECONDS: Final = 2.0
_SWEEP_EVERY_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Window:
    """A span of time in which requests may be refused."""

    name: str
    begin: float
    over: float
    """When it was right again."""
    end: float


@dataclass(frozen=True)
class Sample:
    """What the first replica used at one moment."""

    at: float
    memory_mib: float
    sockets: int
    tasks: float


@dataclass
class Course:
    """What happened in a run, in seconds of this process's clock."""

    begin: float
    windows: list[Window] = field(default_factory=list)
    open_since: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    held_back: int = 0

    @asynccontextmanager
    async def window(self, name: str, *, recovery: float) -> AsyncIterator[None]:
        """Note a span in which something is wrong, and the time to get over it."""
        begin = self.open_since[name] = time.monotonic()
        try:
            yield
        finally:
            del self.open_since[name]
            now = time.monotonic()
            self.windows.append(Window(name, begin, now, now + recovery))

    def is_calm(self, begin: float, end: float) -> bool:
        """Tell whether all was well from one moment to another."""
        is_open = any(since <= end for since in self.open_since.values())
        return not is_open and not any(window.begin <= end and begin <= window.end for window in self.windows)


@dataclass(frozen=True)
class Growth:
    """One thing that a replica uses: its median near the begin and at the end, of moments when all was well."""

    name: str
    first: float
    last: float
    most: float

    @property
    def is_flat(self) -> bool:
        """Whether it has not grown."""
        return self.last <= self.most


@dataclass(frozen=True)
class Outcome:
    """What a run has shown."""

    course: Course
    record: Record
    capacity: float
    rate: float
    lost: Sequence[str]
    kills: int
    quiet: tuple[Sample, Sample]
    """The first replica before and after the load."""
    seconds: float
    seed: int

    @property
    def cut_off(self) -> list[Refusal]:
        """What got no answer since its replica was killed at that moment."""
        kills = [window.begin for window in self.course.windows if window.name == KILL]
        return [
            one
            for one in self.record.wrong
            if one.status is None and any(one.begun <= at + _CUT_OFF_SECONDS and at <= one.ended for at in kills)
        ]

    @property
    def unexpected(self) -> list[Refusal]:
        """What was refused while all was well."""
        return [one for one in self.record.refusals if self.course.is_calm(one.begun, one.ended)]

    @property
    def growth(self) -> list[Growth]:
        """How the first replica's needs have changed: memory while all was well, the rest before and after the load."""
        calm = [sample for sample in self.course.samples if self.course.is_calm(sample.at, sample.at)]
        # What is filled once, such as caches and pools, is filled by then.
        first = [one.memory_mib for one in calm if 0.15 <= (one.at - self.course.begin) / self.seconds <= 0.45]
        last = [one.memory_mib for one in calm if (one.at - self.course.begin) / self.seconds >= 0.7]
        before, after = self.quiet
        found = [
            Growth("sockets, without load", before.sockets, after.sockets, before.sockets + _MORE),
            Growth("tasks, without load", before.tasks, after.tasks, before.tasks + _MORE),
        ]
        if first and last:
            memory = statistics.median(first)
            found.append(Growth("memory under load, MiB", memory, statistics.median(last), memory * 1.1 + 8))
        return found

    @property
    def mistakes(self) -> list[str]:
        """What must not be."""
        cut_off = self.cut_off
        wrong = [one for one in self.record.wrong if one not in cut_off][:20]
        refused = Counter((one.kind.value, one.status, one.said) for one in self.unexpected)
        grown = [f"{one.name}: {one.first:.0f}, then {one.last:.0f}" for one in self.growth if not one.is_flat]
        return [
            *self.lost,
            *(f"{one.kind.value} answered {one.status}: {one.said}" for one in wrong),
            *(f"while all was well, {count} times {what}" for what, count in refused.most_common(20)),
            *grown,
        ]


async def _one(load: Load, kind: Kind) -> None:
    if kind is Kind.MINT:
        await load.mint()
    elif kind is Kind.LIST:
        await load.list_accounts()
    else:
        await load.webhook(changes=load.chance.random() < 0.2)


def _kinds(chance: random.Random) -> Callable[[], Kind]:
    names, weights = list(_MIX), list(_MIX.values())
    return lambda: chance.choices(names, weights)[0]


async def _capacity(load: Load) -> float:
    """Return how many requests of the mix are answered in a second when each caller waits for its last one."""
    kind = _kinds(load.chance)
    until = time.monotonic() + _CAPACITY_SECONDS

    async def work() -> None:
        while time.monotonic() < until:
            await _one(load, kind())

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CAPACITY_WORKERS):
            tasks.create_task(work())
    half = began + _CAPACITY_SECONDS / 2
    done = sum(half <= end <= until for kind in _MIX for end in load.record.successes[kind].ended)
    return done / (until - half)


async def _arrivals(load: Load, rate: float, course: Course) -> None:
    """Have requests come at a rate, whether or not earlier ones are answered; beyond a bound they are held back."""
    kind = _kinds(load.chance)
    owed = 0.0
    last = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        while not load.is_over.is_set():
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            owed += (now - last) * rate
            last = now
            while owed >= 1:
                owed -= 1
                if load.in_flight >= _MOST_IN_FLIGHT:
                    course.held_back += 1
                else:
                    tasks.create_task(_one(load, kind()))


async def _kills(stand: Stand, load: Load, course: Course) -> int:
    """Kill the second replica every minute, and start it again."""
    count = 0
    broker, port = stand.replicas[1], stand.ports[1]
    while not load.is_over.is_set():
        await load.pause(_KILL_EVERY_SECONDS)
        if load.is_over.is_set():
            break
        count += 1
        async with course.window(KILL, recovery=3):
            await asyncio.to_thread(broker.kill)
            broker.start()
            began = time.monotonic()
            while time.monotonic() - began < _BACK_WITHIN_SECONDS and not load.is_over.is_set():
                await asyncio.sleep(0.5)
                if await stand.is_ready(port):
                    break
    return count


async def _sample(stand: Stand) -> Sample | None:
    """Look at what the first replica uses now."""
    pid, port = stand.replicas[0].pid, stand.metrics_ports[0]
    try:
        told = (await stand.http.get(f"http://127.0.0.1:{port}/metrics")).text
    except httpx2.TransportError:
        return None
    found = re.search(r"^broker_event_loop_tasks (\S+)", told, re.MULTILINE)
    memory = _pages(pid) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return Sample(time.monotonic(), memory, _sockets(pid), float(found[1])) if found else None


async def _samples(stand: Stand, load: Load, course: Course) -> None:
    """Look every second."""
    while not load.is_over.is_set():
        if sample := await _sample(stand):
            course.samples.append(sample)
        await load.pause(1)


async def _quiet(stand: Stand, like: Sample | None = None) -> Sample:
    """Wait until connections that nobody uses are closed, and look; no longer than it takes to be `like` before."""
    # HAProxy looks for idle connections every five seconds, and closes half of them.
    await asyncio.sleep(12)
    until = time.monotonic() + _QUIET_WITHIN_SECONDS
    last: Sample | None = None
    while last is None or time.monotonic() < until:
        await asyncio.sleep(2)
        now = await _sample(stand)
        if now is None:
            continue
        is_over = (
            now.sockets <= like.sockets + _MORE and now.tasks <= like.tasks + _MORE if like else _is_settled(now, last)
        )
        last = now
        if is_over:
            break
    return last


def _is_settled(now: Sample, before: Sample | None) -> bool:
    """Tell whether nothing has been closed since the last look."""
    return before is not None and now.sockets >= before.sockets and now.tasks >= before.tasks


def _pages(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def _sockets(pid: int) -> int:
    count = 0
    # One that is closed meanwhile is not counted.
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(file.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


async def _faults(neighbours: Neighbours, course: Course, until: float, show: Callable[[str], None]) -> None:
    """Have one thing after the other go wrong, with a time of calm after each."""
    deck = neighbours.deck()
    while time.monotonic() < until:
        fault = deck.pop()
        deck = deck or neighbours.deck()
        show(fault.name)
        async with course.window(fault.name, recovery=fault.recovery_seconds), fault.block():
            await asyncio.sleep(neighbours.chance.uniform(*_FAULT_SECONDS))
        show("nothing is wrong")
        await asyncio.sleep(fault.recovery_seconds + _CALM_SECONDS)


def _faketime() -> Path:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))))


async def play(minutes: float, seed: int, folder: Path) -> Outcome:
    """Play a run."""
    chance = random.Random(seed)  # noqa: S311  no secret
    seconds = minutes * 60
    data = folder / "postgresql"
    data.mkdir()
    data.chmod(0o755)
    clocks = [folder / f"clock-{number}" for number in range(2)]
    for clock in clocks:
        clock.write_text("+0\n")
    fake = {"LD_PRELOAD": str(_faketime()), "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with Bar(round(seconds)) as bar, RedisServer(folder) as redis:
        bar.show(0, "starts PostgreSQL, Redis, two brokers")
        database = await asyncio.to_thread(OwnPostgresql, data)
        settings = {
            **fake,
            "BROKER_DATABASE__POOL_SIZE": "8",
            "BROKER_DATABASE__POOL_OVERFLOW": "7",
            "BROKER_LIMITS__STORAGE_URL": redis.url,
        }
        own = [{"FAKETIME_TIMESTAMP_FILE": str(clock)} for clock in clocks]
        try:
            async with (
                open_stand(folder, database.url(), database.url(), settings=settings, own=own) as stand,
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
            ):
                load = Load(stand, http, chance=chance, again_seconds=_WEBHOOK_AGAIN_SECONDS)
                bar.show(0, "measures what they can do")
                capacity = await _capacity(load)
                bar.show(0, "waits until they are quiet")
                before = await _quiet(stand)
                neighbours = Neighbours(stand, load, database, redis, clocks, chance)
                course, kills = await _soak(neighbours, capacity * _SHARE, seconds, bar)
                bar.show(round(seconds), "looks for what was acknowledged")
                lost = await settle(database.url(), stand, load.record)
                quiet = before, await _quiet(stand, before)
        finally:
            await asyncio.to_thread(database.stop)
    return Outcome(course, load.record, capacity, capacity * _SHARE, lost, kills, quiet, seconds, seed)


async def _soak(neighbours: Neighbours, rate: float, seconds: float, bar: Bar) -> tuple[Course, int]:
    load, stand = neighbours.load, neighbours.stand
    course = Course(time.monotonic())
    until = course.begin + seconds
    now = "nothing is wrong"

    def show(what: str) -> None:
        nonlocal now
        now = what
        bar.show(round(time.monotonic() - course.begin), what)

    async def tick() -> None:
        while not load.is_over.is_set():
            show(now)
            await load.pause(1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_arrivals(load, rate, course))
        tasks.create_task(load.keep_sweeping(_SWEEP_EVERY_SECONDS))
        tasks.create_task(_samples(stand, load, course))
        tasks.create_task(tick())
        kills = tasks.create_task(_kills(stand, load, course))
        try:
            await load.pause(_CALM_SECONDS)
            await _faults(neighbours, course, until, show)
        finally:
            load.is_over.set()
    return course, kills.result()


def picture(outcome: Outcome) -> str:
    """Draw a run."""
    course, record = outcome.course, outcome.record
    seconds = max(sample.at for sample in course.samples) - course.begin
    answered = Counter(int(end - course.begin) for kind in Kind for end in record.successes[kind].ended)
    refused = Counter(int(one.ended - course.begin) for one in record.refusals)

    def curve(name: str, color: str, value: Callable[[Sample], float]) -> Curve:
        return Curve(name, color, [(sample.at - course.begin, value(sample)) for sample in course.samples])

    seconds_of = range(int(seconds))
    panels = [
        Panel(
            "answers a second",
            [
                Curve("success", "#1b9e77", [(at, answered[at]) for at in seconds_of]),
                Curve("429 and 503", "#d95f02", [(at, refused[at]) for at in seconds_of]),
            ],
        ),
        Panel("memory of the first replica, MiB", [curve("memory", "#1f77b4", lambda sample: sample.memory_mib)]),
        Panel("its sockets", [curve("sockets", "#7570b3", lambda sample: sample.sockets)]),
        Panel("its tasks", [curve("tasks", "#666666", lambda sample: sample.tasks)]),
    ]
    bands = [
        (window.begin - course.begin, window.over - course.begin) for window in course.windows if window.name != KILL
    ]
    title = f"{seconds / 60:.0f} minutes at {outcome.rate:.0f} requests a second; a band: something is wrong"
    return draw(title, panels, bands, seconds)


def report(outcome: Outcome) -> str:
    """Spell the figures."""
    course, record = outcome.course, outcome.record
    rows = []
    for name in sorted({window.name for window in course.windows}):
        mine = [window for window in course.windows if window.name == name]
        refused = [sum(window.begin <= one.begun < window.end for one in record.refusals) for window in mine]
        answered = [
            sum(window.begin <= begun < window.end for kind in Kind for begun in record.successes[kind].begun)
            for window in mine
        ]
        rows.append([name, str(len(mine)), f"{sum(answered):,}", f"{sum(refused):,}"])
    used = [[one.name, f"{one.first:.0f}", f"{one.last:.0f}"] for one in outcome.growth]
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {outcome.seconds / 60:g} minutes, seed {outcome.seed}"
    rates = f"Capacity {outcome.capacity:.0f} requests a second, load {outcome.rate:.0f}"
    lines = [
        f"{when}, {circumstances()}",
        "",
        f"{rates}; held back beyond {_MOST_IN_FLIGHT} at once: {course.held_back:,}. Killed {outcome.kills} times.",
        "",
        table(["what was wrong", "times", "answered", "429 or 503"], rows),
        table(["first replica", "at first", "at the end"], used),
        *record.told(),
        f"Cut off by kills: {len(outcome.cut_off)}. Refused while all was well: {len(outcome.unexpected)}.",
        f"Lost: {len(outcome.lost)}.",
        "",
    ]
    return "\n".join(lines)


async def _run(minutes: float, seed: int, folder: Path) -> Outcome:
    task = asyncio.current_task()
    assert task is not None
    # What was started is stopped, whoever ends the run.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await play(minutes, seed, folder)


def soak(
    minutes: Annotated[float, typer.Option(min=1, help="How long things go wrong.")] = 30,
    seed: Annotated[int, typer.Option(help="Decides what goes wrong when.")] = 14,
    image: Annotated[Path, typer.Option("--picture", help="Where the picture goes.")] = PICTURE,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with logs and data.")] = False,  # noqa: FBT002
) -> None:
    """Have everything go wrong around a broker under load, and see that nothing is lost and nothing grows."""
    configure_logs("ERROR")
    leave_if_missing(NEEDS)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)
    try:
        outcome = asyncio.run(_run(minutes, seed, folder))
    except BaseException:
        sys.stderr.write(f"logs: {folder}\n")
        raise
    sys.stdout.write(report(outcome))
    image.write_text(picture(outcome), encoding="utf-8")
    mistakes = outcome.mistakes
    sys.stdout.writelines(f"- {mistake}\n" for mistake in mistakes)
    if mistakes or keep:
        sys.stderr.write(f"logs: {folder}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(1 if mistakes else 0)


if __name__ == "__main__":
    typer.run(soak)
