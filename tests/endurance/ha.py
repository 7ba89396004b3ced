"""The primary dies again and again under load: make ha, or python -m tests.endurance.ha --kills 20.

Two replicas of the broker, PgBouncer, a primary with a synchronous standby under Patroni and etcd. Every other death is
that of PostgreSQL alone, the others take its Patroni with it, which is missed only when its lease has run out. The run
fails if anything acknowledged is missing at the end, if anything but success and a 503 with Retry-After was answered,
or if a request was refused that began more than ten seconds after there was a new primary.
"""

import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import aiohttp
import typer

from app.logs import configure_logs
from tests.endurance.cluster import NEEDS, Cluster, Node, open_cluster, until
from tests.endurance.load import Kind, Load, Record
from tests.endurance.stand import open_stand
from tests.endurance.telling import Bar, circumstances, leave_if_missing, table
from tests.endurance.truth import settle

SERVING_WITHIN_SECONDS: Final = 10.0
_NEW_PRIMARY_WITHIN_SECONDS: Final = 90.0
_SERVED_WITHIN_SECONDS: Final = 60.0
_CALM_SECONDS: Final = 3.0
_MINTERS, _SENDERS, _READERS = 6, 6, 4
_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True)
class Kill:
    """One death of the primary, in seconds of this process's clock."""

    what: str
    at: float
    new_primary_at: float
    served_at: float
    """When a request of each kind that began after that had been answered as it should be."""
    last_refused: float = 0.0
    """When the last request began that was refused, before the next death."""
    refused: int = 0
    longest: float = 0.0
    """How long the slowest refusal took."""

    @property
    def in_time(self) -> bool:
        """Whether it was served again in time."""
        return max(self.served_at, self.last_refused) - self.new_primary_at <= SERVING_WITHIN_SECONDS


async def _minting(load: Load) -> None:
    while not load.is_over.is_set():
        await load.mint()
        await load.pause(_PAUSE_SECONDS)


async def _reading(load: Load) -> None:
    while not load.is_over.is_set():
        await load.list_accounts()
        await load.pause(_PAUSE_SECONDS)


async def _sending(load: Load) -> None:
    while not load.is_over.is_set():
        await load.webhook()
        await load.pause(_PAUSE_SECONDS)


async def _kill(cluster: Cluster, load: Load, number: int, show: Callable[[str], None]) -> Kill:
    """Kill the primary, and wait until all is well again."""
    primary = await cluster.await_whole()
    await asyncio.sleep(_CALM_SECONDS)
    is_whole_node = number % 2 == 1
    show("kills the primary's whole node" if is_whole_node else "kills the primary")
    at = time.monotonic()
    (primary.kill if is_whole_node else primary.kill_postgresql)()

    async def successor() -> Node | None:
        node = await cluster.primary()
        # Patroni believes its PostgreSQL for a moment after that has died.
        return node if node is not primary else None

    await until(successor, what="a new primary", within=_NEW_PRIMARY_WITHIN_SECONDS)
    new_primary_at = time.monotonic()
    show("waits to be served")

    async def served() -> list[float] | None:
        firsts = [load.record.successes[kind].first_since(new_primary_at) for kind in Kind]
        return [first for first in firsts if first] if all(firsts) else None

    served_at = max(await until(served, what="a request of each kind is served", within=_SERVED_WITHIN_SECONDS))
    show("brings the old primary back as standby")
    primary.start()
    await cluster.await_whole()
    await asyncio.sleep(max(0.0, new_primary_at + SERVING_WITHIN_SECONDS + 1 - time.monotonic()))
    return Kill("node" if is_whole_node else "PostgreSQL", at, new_primary_at, served_at)


def _with_refusals(kills: Sequence[Kill], record: Record) -> list[Kill]:
    """Add what was refused from each death to the next."""
    ends = [*(kill.at for kill in kills[1:]), float("inf")]
    told = []
    for kill, end in zip(kills, ends, strict=True):
        # What the next death cut off belongs to that.
        refused = [one for one in record.refusals if kill.at <= one.ended < end]
        last = max((one.begun for one in refused), default=kill.at)
        longest = max((one.ended - one.begun for one in refused), default=0.0)
        told.append(replace(kill, last_refused=last, refused=len(refused), longest=longest))
    return told


@dataclass(frozen=True)
class Outcome:
    """What a run has shown."""

    kills: Sequence[Kill]
    record: Record
    lost: Sequence[str]
    seconds: float

    @property
    def mistakes(self) -> list[str]:
        """What must not be."""
        late = [f"kill {number}: served too late" for number, kill in enumerate(self.kills, 1) if not kill.in_time]
        wrong = [f"{one.kind.value} answered {one.status}: {one.said}" for one in self.record.wrong]
        return [*self.lost, *late, *wrong]


async def play(kills: int, minutes: float, folder: Path) -> Outcome:
    """Play a run: so many deaths, none of them begun after so many minutes."""
    began = time.monotonic()
    done: list[Kill] = []
    with Bar(kills) as bar:
        bar.show(0, "starts etcd, two Patroni, PgBouncer, two brokers")
        async with (
            open_cluster(folder) as cluster,
            open_stand(folder, cluster.url, cluster.direct_url) as stand,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            load = Load(stand, http)
            work: list[Callable[[Load], Awaitable[None]]] = [
                *[_minting] * _MINTERS,
                *[_sending] * _SENDERS,
                *[_reading] * _READERS,
                Load.keep_sweeping,
            ]
            async with asyncio.TaskGroup() as tasks:
                for one in work:
                    tasks.create_task(_of(one, load))
                try:
                    while len(done) < kills and time.monotonic() - began < minutes * 60:
                        done.append(await _kill(cluster, load, len(done), lambda what: bar.show(len(done), what)))
                        bar.show(len(done), _told(done[-1]))
                finally:
                    load.is_over.set()
            bar.show(len(done), "looks for what was acknowledged")
            lost = await settle(cluster.direct_url, stand, load.record)
    return Outcome(_with_refusals(done, load.record), load.record, lost, time.monotonic() - began)


async def _of(work: Callable[[Load], Awaitable[None]], load: Load) -> None:
    await work(load)


def _told(kill: Kill) -> str:
    return (
        f"{kill.what} killed, new primary after {kill.new_primary_at - kill.at:.1f} s, served"
        f" {kill.served_at - kill.new_primary_at:.1f} s later"
    )


def report(outcome: Outcome) -> str:
    """Spell the figures."""
    kinds = Counter(kill.what for kill in outcome.kills)
    rows = [_row(what, [kill for kill in outcome.kills if kill.what == what]) for what in kinds]
    head = ["killed", "times", "new primary after", "served after", "last refused after", "503 each", "slowest"]
    record = outcome.record
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {len(outcome.kills)} kills in {outcome.seconds:.0f} s"
    lines = [f"{when}, {circumstances()}", "", table(head, rows), *record.told(), f"Lost: {len(outcome.lost)}.", ""]
    return "\n".join(lines)


def _row(what: str, kills: Sequence[Kill]) -> list[str]:
    def spread(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.1f} s (most {max(values):.1f} s)"

    return [
        what,
        str(len(kills)),
        spread([kill.new_primary_at - kill.at for kill in kills]),
        spread([kill.served_at - kill.new_primary_at for kill in kills]),
        spread([max(0.0, kill.last_refused - kill.new_primary_at) for kill in kills]),
        f"{statistics.median([kill.refused for kill in kills]):.0f}",
        f"{max(kill.longest for kill in kills):.1f} s",
    ]


async def _run(kills: int, minutes: float, folder: Path) -> Outcome:
    task = asyncio.current_task()
    assert task is not None
    # What was started is stopped, whoever ends the run.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await play(kills, minutes, folder)


def ha(
    kills: Annotated[int, typer.Option(min=1, help="How often the primary dies.")] = 20,
    minutes: Annotated[float, typer.Option(min=1, help="No death is begun after that.")] = 40,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with logs and data.")] = False,  # noqa: FBT002
) -> None:
    """Kill the primary under load, and see that nothing acknowledged is lost."""
    configure_logs("ERROR")
    leave_if_missing(NEEDS)
    folder = Path(tempfile.mkdtemp(prefix="ha-"))
    folder.chmod(0o755)
    try:
        outcome = asyncio.run(_run(kills, minutes, folder))
    except BaseException:
        sys.stderr.write(f"logs: {folder}\n")
        raise
    sys.stdout.write(report(outcome))
    mistakes = outcome.mistakes
    sys.stdout.writelines(f"- {mistake}\n" for mistake in mistakes)
    if len(outcome.kills) < kills:
        sys.stdout.write(f"only {len(outcome.kills)} of {kills} kills in {minutes:g} minutes\n")
    if mistakes or keep:
        sys.stderr.write(f"logs: {folder}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(1 if mistakes or len(outcome.kills) < kills else 0)


if __name__ == "__main__":
    typer.run(ha)
