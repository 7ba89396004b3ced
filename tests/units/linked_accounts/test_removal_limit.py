"""When the removal limit stops a sweep."""

import pytest

from app.linked_accounts.removal_limit import RemovalLimit


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
def test_the_removal_limit(percent: float, floor: int, known: int, suspects: int, *, goes_on: bool) -> None:
    assert RemovalLimit(percent, floor).allows(known=known, suspects=suspects) is goes_on


def test_the_removal_limit_says_how_to_go_on() -> None:
    advice = RemovalLimit(10, 5).advice(known=1000, suspects=600)
    assert "600 of 1000" in advice
    assert "--max-removal-percent 100" in advice
