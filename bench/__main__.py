"""Run the benchmarks and write docs/performance.md: make bench, or python -m bench JOB... for some, on standard output.

Nothing here passes or fails: machines differ, and the same machine from one minute to the next.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from app.logs import configure_logs
from bench.field import left_out
from bench.jobs import OTHERS, REQUESTS, Plan, Table, progress, requests
from bench.machine import CORES, commit, description
from bench.report import page, picture

_DOCS = Path(__file__).parent.parent / "docs"
_NEED_NO_WRK = {"sweep", "refresh", "idle"}
_JOBS = (*REQUESTS, *OTHERS)


def _chosen(jobs: list[str] | None) -> list[str]:
    wrong = [job for job in jobs or () if job not in _JOBS]
    if wrong:
        message = f"no such job: {', '.join(wrong)}; there are: {', '.join(_JOBS)}"
        raise typer.BadParameter(message)
    return list(jobs or _JOBS)


def bench(
    jobs: Annotated[list[str] | None, typer.Argument(help=f"Some of: {', '.join(_JOBS)}; by default all.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of a contender's turn.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 5,
    minutes: Annotated[float, typer.Option(min=0.5, help="No further job is begun after that.")] = 45,
    accounts: Annotated[
        list[int] | None, typer.Option(min=1_000, help="Size of a store that is swept and read; may be repeated.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="About three minutes: short turns, small stores.")] = False,  # noqa: FBT002
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write; default: docs/performance.md; for some jobs: standard output."),
    ] = None,
) -> None:
    """Measure the broker beside its contenders, on loopback."""
    configure_logs("ERROR")
    chosen = _chosen(jobs)
    plan = Plan(
        seconds=1 if quick else seconds,
        rounds=min(rounds, 2) if quick else rounds,
        quick=quick,
        deadline=time.monotonic() + minutes * 60,
        accounts=tuple(accounts or ()),
    )
    missing = left_out()
    if shutil.which("wrk") is None:
        missing.append("every request but for refresh, sweep and idle: needs wrk (Debian package wrk)")
        chosen = [job for job in chosen if job in _NEED_NO_WRK]
    if shutil.which("taskset") is None or len(CORES) < 2:  # noqa: PLR2004  a server and its load
        missing.append("cores of their own for server and load: needs taskset (util-linux) and two cores")
    load_before = _load_average()
    tables: list[Table] = []
    of_requests = [job for job in chosen if job in REQUESTS]
    runs: list[tuple[str, Callable[[Plan], list[Table]]]] = []
    if of_requests:
        runs.append(("requests", lambda plan: requests(plan, of_requests)))
    runs += [(job, OTHERS[job]) for job in chosen if job in OTHERS]
    for job, run in runs:
        if plan.is_over:
            missing.append(f"{job}: the {minutes:g} minutes were over")
            continue
        progress(job)
        try:
            tables += run(plan)
        except Exception as error:  # noqa: BLE001  what else was measured is worth telling
            progress(f"{job} failed: {error!r}")
            missing.append(f"{job}: failed with {type(error).__name__}")
    facts = (description(), f"commit {commit()}", f"load average before {load_before}, after {_load_average()}")
    target = output or (None if jobs else _DOCS / "performance.md")
    _write(target, page(tables, plan, facts=facts, missing=missing, picture="images/performance.svg"), tables)


def _write(target: Path | None, text: str, tables: list[Table]) -> None:
    if target is None:
        sys.stdout.write(text)
        return
    target.write_text(text, encoding="utf-8")
    images = target.parent / "images"
    images.mkdir(exist_ok=True)
    drawn = {"performance.svg": picture(tables)}
    for table in tables:
        drawn |= table.images
    for name, drawing in drawn.items():
        (images / name).write_text(drawing, encoding="utf-8")
    progress(f"written to {target}")


def _load_average() -> str:
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    typer.run(bench)
