"""broker sync: sweep now, and watch it."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.opener import with_runtime
from app.cli.printer import AsJson, fail, print_json, print_line
from app.runtime import Runtime
from app.sync.preview import DryRun, dry_run
from app.sync.runs import Sweep
from app.sync.schemas import SweepOut
from app.sync.sweep import Ahead, run_sweep

if TYPE_CHECKING:
    from app.cli.progress import SweepProgress

_EXIT_STOPPED = 3
_EXIT_BUSY = 4
_LOOK_SECONDS = 0.5

MaxRemoval = Annotated[
    float | None,
    typer.Option(
        "--max-removal-percent", min=0, max=100, help="Allow this sweep to remove this share of the accounts."
    ),
]


def sync(
    max_removal_percent: MaxRemoval = None,
    *,
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare everything at StackOne with the store and put the store right; takes up an interrupted sweep.

    Exit status: 0 done, 1 StackOne or the database is away (run it again), 3 stopped without removing anything,
    4 another process is sweeping.
    """
    from app.cli.progress import SweepProgress  # noqa: PLC0415  no other command pays for importing it

    with SweepProgress() as progress:

        def show(now: Sweep | DryRun, ahead: Ahead) -> None:
            found = f"+{now.added} ~{now.changed} -{now.removed}"
            if now.complete:
                progress.read(ahead.suspects_read, now.suspects, found=found, pause=ahead.pause)
            else:
                progress.listed(now.listed, known=ahead.known, found=found, pause=ahead.pause)

        async def carry_out(runtime: Runtime) -> Sweep | DryRun | None:
            if dry:
                return await dry_run(
                    runtime,
                    max_removal_percent=max_removal_percent,
                    listener=lambda found: show(found, Ahead(found.known, 0)),
                )
            return await run_sweep(runtime, by="cli", max_removal_percent=max_removal_percent, listener=show)

        async def work(runtime: Runtime) -> Sweep | DryRun | None:
            watching = asyncio.create_task(_tell_waits(runtime, progress))
            try:
                return await carry_out(runtime)
            finally:
                watching.cancel()

        result = with_runtime(work)
    if result is None:
        fail("another process is sweeping; see GET /v1/sync for how far it is", status=_EXIT_BUSY)
    if as_json:
        print_json(_as_json(result))
    else:
        verb = "would be " if dry else ""
        print_line(
            f"{result.listed} accounts listed: {result.added} {verb}added, {result.changed} {verb}changed,"
            f" {result.removed} {verb}removed"
        )
    advice = result.advice if isinstance(result, DryRun) else result.reason
    if not advice and not result.complete:
        advice = "the listing did not come to its end: no removals were looked for"
    if advice:
        fail(advice, status=_EXIT_STOPPED)


async def _tell_waits(runtime: Runtime, progress: "SweepProgress") -> None:
    """Say, until it is cancelled, when the sweep stands because calls to StackOne are rationed."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        progress.waits(runtime.stackone.waits_for_budget)


def _as_json(result: Sweep | DryRun) -> dict[str, Any]:
    if isinstance(result, DryRun):
        return {"dry_run": True, **asdict(result)}
    return {"dry_run": False, **SweepOut.of(result).model_dump(mode="json")}
