"""The judgements of a sweep: where a listing ends, and when the removal limit stops it."""

import pytest

from app.sync.plan import Page, RemovalLimit, judge_page


def walk(pages: list[list[int]], asked: int = 3) -> tuple[str, set[int]]:
    """Page through a listing that answers these pages, from page 0 on, and nothing behind them."""
    seen: set[int] = set()
    for number in range(50):
        rows = pages[number] if number < len(pages) else []
        new = set(rows) - seen
        seen |= new
        verdict = judge_page(Page(number, asked, len(rows), len(new)))
        if verdict != "more":
            return verdict, seen
    return "endless", seen


@pytest.mark.parametrize(
    ("pages", "verdict", "listed"),
    [
        pytest.param([[], []], "complete", 0, id="nothing at all"),
        pytest.param([[1, 2, 3], [1, 2, 3], [4, 5]], "complete", 5, id="first page is 1, and 0 answers it too"),
        pytest.param([[], [1, 2, 3], [4, 5]], "complete", 5, id="first page is 1, and 0 is empty"),
        pytest.param([[1, 2, 3], [4, 5, 6], [7]], "complete", 7, id="first page is 0"),
        pytest.param([[1, 2, 3]], "complete", 3, id="first page is 0, and there is one"),
        pytest.param([[1, 2], [1, 2], [3, 4], [5]], "complete", 5, id="pages are cut to 2"),
        pytest.param([[1, 2, 3], [1, 2, 3], [3, 4, 5], [5]], "complete", 5, id="rows repeat"),
        pytest.param([[1, 2, 3]] * 9, "incomplete", 3, id="the page number is ignored, and the page is full"),
        pytest.param([[1, 2]] * 9, "complete", 2, id="the page number is ignored, and all fits"),
        pytest.param([[1, 2, 3, 4, 5]] * 9, "complete", 5, id="paging is ignored altogether"),
    ],
)
def test_a_listing_ends_where_nothing_new_comes(pages: list[list[int]], verdict: str, listed: int) -> None:
    outcome, seen = walk(pages)
    assert (outcome, len(seen)) == (verdict, listed)


@pytest.mark.parametrize(
    ("percent", "floor", "known", "suspects", "goes_on"),
    [
        (10, 5, 1000, 0, True),
        (10, 5, 1000, 100, True),
        (10, 5, 1000, 101, False),
        (10, 5, 10, 5, True),
        (10, 5, 10, 6, False),
        (0, 5, 1000, 1, False),
        (0, 5, 1000, 0, True),
        (100, 0, 10, 10, True),
    ],
)
def test_the_brake(percent: float, floor: int, known: int, suspects: int, *, goes_on: bool) -> None:
    assert RemovalLimit(percent, floor).allows(known=known, suspects=suspects) is goes_on


def test_the_brake_says_how_to_go_on() -> None:
    advice = RemovalLimit(10, 5).advice(known=1000, suspects=600)
    assert "600 of 1000" in advice
    assert "--max-removal-percent 100" in advice
