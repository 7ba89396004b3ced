"""broker sync: sweep now, and watch it."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.cli.opener import err, out, with_runtime
from app.runtime import Runtime
from app.sync.preview import DryRun, dry_run
from app.sync.runs import Sweep
from app.sync.schemas import SweepOut
from app.sync.sweep import run_sweep

_EXIT_STOPPED = 3
_EXIT_BUSY = 4

MaxRemoval = Annotated[
    float | None,
    typer.Option("--max-removal-percent", min=0, max=100, help="Let the removal limit allow this much, this once."),
]


def sync(
    max_removal_percent: MaxRemoval = None,
    *,
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Compare everything at StackOne with the store and put the store right; takes up an interrupted sweep.

    Exit status: 0 done, 1 StackOne or the database is away (run it again), 3 stopped without removing anything,
    4 another process is sweeping.
    """
    with _progress() as progress:
        task = progress.add_task("sweep", total=None, found="")

        async def work(runtime: Runtime) -> Sweep | DryRun | None:
            if dry:
                return await dry_run(
                    runtime,
                    max_removal_percent=max_removal_percent,
                    listener=lambda found: _show(progress, task, found, found.known),
                )
            return await run_sweep(
                runtime,
                by="cli",
                max_removal_percent=max_removal_percent,
                listener=lambda sweep, known: _show(progress, task, sweep, known),
            )

        result = with_runtime(work)
    if result is None:
        err.print("another process is sweeping; see GET /v1/sync for how far it is")
        sys.exit(_EXIT_BUSY)
    advice = result.advice if isinstance(result, DryRun) else result.reason
    if as_json:
        sys.stdout.write(json.dumps(_as_json(result)) + "\n")
    else:
        verb = "would be " if dry else ""
        out.print(
            f"{result.listed} accounts listed: {result.added} {verb}added, {result.changed} {verb}changed,"
            f" {result.removed} {verb}removed"
        )
    if advice:
        err.print(advice, style="bold red", markup=False)
    is_whole = result.complete and not advice
    if not is_whole and not advice:
        err.print("the listing did not come to its end: no removals were looked for", style="bold red")
    if not is_whole:
        sys.exit(_EXIT_STOPPED)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[found]}"),
        console=err,
        transient=True,
    )


def _show(progress: Progress, task: TaskID, now: Sweep | DryRun, known: int) -> None:
    found = f"+{now.added} ~{now.changed} -{now.removed}"
    # StackOne gives no total: what the store knows is the best guess.
    progress.update(task, completed=now.listed, total=max(known, now.listed) or None, found=found)


def _as_json(result: Sweep | DryRun) -> dict[str, Any]:
    if isinstance(result, DryRun):
        return {"dry_run": True, **result.__dict__}
    return {"dry_run": False, **SweepOut.of(result).model_dump(mode="json")}
