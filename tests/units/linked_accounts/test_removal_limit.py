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
        (1, 0, 100, 1, True),
        (0.5, 0, 1000, 5, True),
        (0.5, 0, 1000, 6, False),
    ],
)
def test_the_removal_limit(percent: float, floor: int, known: int, suspects: int, *, goes_on: bool) -> None:
    assert RemovalLimit(percent, floor).allows(known=known, suspects=suspects) is goes_on


@pytest.mark.parametrize("percent", [0, 0.3, 1, 7, 10, 33.3, 100])
def test_no_more_are_counted_than_it_takes_to_know(percent: float) -> None:
    removal_limit = RemovalLimit(percent, 5)
    for suspects in (*range(40), 999, 1000):
        enough = removal_limit.enough_for(suspects)
        for known in {0, 1, 50, 1000, 10**7, max(enough - 2, 0), enough, enough + 1}:
            counted = min(known, enough)
            assert removal_limit.allows(known=counted, suspects=suspects) is removal_limit.allows(
                known=known, suspects=suspects
            )


def test_the_removal_limit_says_how_to_go_on() -> None:
    advice = RemovalLimit(10, 5).advice(known=1000, suspects=600)
    assert advice == (
        "StackOne's listing lacks 600 of 1000 accounts, more than 10 %: nothing was removed. If they really are gone,"
        " run `broker sync --max-removal-percent 100` or POST /v1/sync with"
        ' {"max_removal_percent": 100}; each is still read at StackOne before it is removed.'
    )
