"""Run the benchmarks: figures on standard output as JSON lines, progress on standard error.

    python -m bench                          both, in a few minutes
    python -m bench sweep 100000 1000000     sweeps of stores of that size, on both databases
    python -m bench requests                 minting and listing, beside a naive handler

Nothing here passes or fails: machines differ, and the same machine from one minute to the next.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app.logs import configure_logs
from bench.requests import bench_requests
from bench.sweep import bench
from tests.support.databases import PostgresqlDatabases, SqliteDatabases, postgresql_server

KINDS = ("sqlite", "postgresql")
Database = Annotated[list[str] | None, typer.Option(help="sqlite or postgresql; by default both.")]

cli = typer.Typer(add_completion=False, help="Figures on standard output, progress on standard error.")


@contextmanager
def fresh(kind: str) -> Iterator[str]:
    """Make an empty database with the newest schema, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        if kind == "sqlite":
            yield SqliteDatabases(Path(directory)).create()
            return
        with postgresql_server(Path(directory)) as server:
            databases = PostgresqlDatabases(server, "bench")
            try:
                yield databases.create()
            finally:
                databases.close()


@cli.command("sweep")
def run_sweeps(
    accounts: Annotated[list[int] | None, typer.Argument(min=1, help="Sizes; by default 10000 and 100000.")] = None,
    database: Database = None,
) -> None:
    """Fill a store by a first sweep and sweep it three times more, for each size and database."""
    for kind in database or KINDS:
        with fresh(kind) as url:
            asyncio.run(bench(url, accounts or [10_000, 100_000]))


@cli.command("requests")
def run_requests(
    database: Database = None,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds, each of the broker and its peer in turns.")] = 7,
    requests: Annotated[int, typer.Option(min=20, help="Requests of a round.")] = 200,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 8,
) -> None:
    """Mint and list through the broker and through a naive handler over the same emulator."""
    for kind in database or KINDS:
        with fresh(kind) as url:
            asyncio.run(bench_requests(url, rounds=rounds, requests=requests, concurrency=concurrency))


@cli.callback(invoke_without_command=True)
def run(context: typer.Context) -> None:
    """Without a command: all of them, in their usual sizes."""
    configure_logs("ERROR")
    if context.invoked_subcommand is None:
        context.invoke(run_requests)
        context.invoke(run_sweeps)


if __name__ == "__main__":
    cli()
