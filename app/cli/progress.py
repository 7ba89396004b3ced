"""Progress bars, on standard error; imported by the commands that show them."""

import time
from collections.abc import Iterable
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from app.cli.printer import print_note

_NOTE_SECONDS = 10.0
_WAITS = "waits for room in the budget of calls to StackOne (BROKER_STACKONE__REQUESTS_PER_MINUTE), {:.0f} s"


class _BarAndWords(Progress):
    """A bar, and below it what was found and why it stands: beside it, they would take the bar's own room."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar, and the words where there are any."""
        yield from super().get_renderables()
        for task in self.tasks:
            if words := " ".join(filter(None, (task.fields["found"], task.fields["pause"]))):
                yield Text(words, style="yellow")


class SweepProgress:
    """Shows how far a sweep is, inside its block; where nobody looks at a terminal, a line every ten seconds.

    StackOne gives no total: the number of accounts in the store is the estimate, and a store that is being filled has
    none. Then, and past the estimate, the bar only shows that it goes on.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = _BarAndWords(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task("listing", total=None, count="", found="", pause="")
        self._is_waiting = False
        self._noted_at = time.monotonic()

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def listed(self, listed: int, *, known: int, found: str, pause: str | None = None) -> None:
        """Show how many accounts StackOne has listed, of about how many."""
        is_estimated = known > 0 and listed <= known
        count = f"{listed:,} of about {known:,}" if is_estimated else f"{listed:,}"
        self._show("listing", listed, known if is_estimated else None, count=count, found=found, pause=pause)

    def read(self, read: int, suspects: int, *, found: str, pause: str | None = None) -> None:
        """Show how many of the accounts that the listing lacks have been read by themselves."""
        count = f"{read:,} of {suspects:,}"
        self._show("reading what it lacks", read, suspects, count=count, found=found, pause=pause)

    def waits(self, seconds: float) -> None:
        """Show that a call waits for room in the budget, and for how long still; 0: none does."""
        if seconds and not self._is_waiting and not self._console.is_terminal:
            self._note(_WAITS.format(seconds))
        if seconds:
            self._bar.update(self._task, pause=_WAITS.format(seconds))
        elif self._is_waiting:
            self._bar.update(self._task, pause="")
        self._is_waiting = bool(seconds)

    def _show(self, what: str, done: int, total: int | None, *, count: str, found: str, pause: str | None) -> None:
        if total is None:
            # To the bar's own `update`, none means as before.
            self._bar.tasks[0].total = None
        self._bar.update(
            self._task, description=what, completed=done, total=total, count=count, found=found, pause=pause or ""
        )
        if self._console.is_terminal:
            return
        if pause is not None or time.monotonic() - self._noted_at >= _NOTE_SECONDS:
            self._note(pause or f"{what}: {count}, {found}")

    def _note(self, line: str) -> None:
        self._noted_at = time.monotonic()
        print_note(line)


class RowsProgress:
    """Shows how many rows of a known number are done, inside its block."""

    def __init__(self, what: str, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def show(self, done: int) -> None:
        """Show how many rows are done."""
        self._bar.update(self._task, completed=done)
