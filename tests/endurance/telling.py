"""What a run says while it goes on, and in the end: a bar on a terminal, a line each elsewhere; tables as Markdown."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.support.programs import missing


class Bar:
    """How much of a known amount is done, inside its block."""

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            speed_estimate_period=600,
        )
        self._task = self._bar.add_task("starting", total=total)
        self._said = ""

    def __enter__(self) -> Self:
        """Show it."""
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove it."""
        self._bar.stop()

    def show(self, done: int, what: str) -> None:
        """Show how much is done, and what is being done; where nobody looks, a line for each new thing."""
        self._bar.update(self._task, completed=done, description=what)
        if not self._console.is_terminal and what != self._said:
            self._said = what
            self._console.print(f"{done}/{self._bar.tasks[0].total:.0f} {what}", soft_wrap=True)


def leave_if_missing(names: Sequence[str]) -> None:
    """End the run with status 2 where a program is missing, and say how to get it."""
    if packages := missing(names):
        sys.stderr.write(f"missing here; on Debian and Ubuntu: apt-get install {' '.join(packages)}\n")
        raise SystemExit(2)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Spell a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def circumstances() -> str:
    """Say what the figures depend on: the commit, the machine, and what else it does."""
    git = shutil.which("git")
    root = Path(__file__).resolve().parents[2]
    commit = "unknown"
    if git is not None:
        command = [git, "rev-parse", "--short", "HEAD"]
        said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        commit = said.stdout.strip() or commit
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"commit {commit}, {os.cpu_count()} cores, Python {platform.python_version()}, load average {load}"
