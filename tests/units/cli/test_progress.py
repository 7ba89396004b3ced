"""The bar of a sweep: what it says when a total is known, when none is, and when it has to wait."""

import io
import re

import pytest
from rich.console import Console

from app.cli.progress import SweepProgress


def shown(progress: SweepProgress) -> str:
    """Return the bar as a terminal would show it now."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    console.print(progress._bar.get_renderable())  # noqa: SLF001  what is shown is what is tested
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).split())


@pytest.fixture
def progress() -> SweepProgress:
    return SweepProgress(Console(file=io.StringIO(), force_terminal=True, width=200))


def test_a_first_fill_claims_no_total(progress: SweepProgress) -> None:
    progress.listed(1500, known=0, found="+1500 ~0 -0")
    assert "1,500" in shown(progress)
    assert " of " not in shown(progress)
    assert progress._bar.tasks[0].total is None  # noqa: SLF001


def test_a_known_store_is_the_estimate_until_more_is_listed(progress: SweepProgress) -> None:
    progress.listed(500, known=2000, found="")
    assert "500 of about 2,000" in shown(progress)
    assert progress._bar.tasks[0].percentage == 25  # noqa: SLF001
    progress.listed(2500, known=2000, found="")
    assert "of about" not in shown(progress)
    assert progress._bar.tasks[0].total is None  # noqa: SLF001


def test_what_the_listing_lacks_has_a_total_of_its_own(progress: SweepProgress) -> None:
    progress.listed(2000, known=2000, found="")
    progress.read(25, 100, found="-3")
    assert "reading what it lacks" in shown(progress)
    assert "25 of 100" in shown(progress)
    assert progress._bar.tasks[0].percentage == 25  # noqa: SLF001


def test_waiting_for_the_budget_is_said_and_ends(progress: SweepProgress) -> None:
    progress.listed(500, known=2000, found="")
    progress.waits(12.4)
    assert "BROKER_STACKONE__REQUESTS_PER_MINUTE), 12 s" in shown(progress)
    assert "listing" in shown(progress)
    assert "500 of about 2,000" in shown(progress)
    progress.waits(0)
    assert "waits" not in shown(progress)


def test_where_nobody_looks_a_wait_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SweepProgress(Console(file=io.StringIO(), force_terminal=False))
    for seconds in (12, 11, 10, 0, 9):
        progress.waits(seconds)
    progress.listed(5, known=0, found="", pause="StackOne answered 503; tried again in 5 s")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+ s$", "", line) for line in lines] == [
        "waits for room in the budget of calls to StackOne (BROKER_STACKONE__REQUESTS_PER_MINUTE), ",
        "waits for room in the budget of calls to StackOne (BROKER_STACKONE__REQUESTS_PER_MINUTE), ",
        "StackOne answered 503; tried again in ",
    ]
