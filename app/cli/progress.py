"""The progress bar of a sweep, on standard error; imported by the one command that shows it."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class SweepProgress:
    """Shows how far a sweep is, inside its block."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[found]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("sweep", total=None, found="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def show(self, *, listed: int, known: int, found: str) -> None:
        """Show how many accounts StackOne has listed, and what was found in them."""
        # StackOne gives no total: the number of known accounts is the best guess.
        self._bar.update(self._task, completed=listed, total=max(known, listed) or None, found=found)
