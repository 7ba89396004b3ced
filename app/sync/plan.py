"""The judgements of a sweep, without any reading or writing."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["more", "complete", "incomplete"]

# Beyond this many pages a listing is not a listing.
_MOST_PAGES = 200_000


@dataclass(frozen=True)
class Page:
    """One page of a listing, as far as its end is concerned."""

    number: int
    asked: int
    rows: int
    new: int
    """Rows that no earlier page of this sweep had."""


def judge_page(page: Page) -> Verdict:
    """Say whether a listing goes on behind this page, has come to its end, or cannot be relied on.

    StackOne documents neither the number of the first page nor a total, so pages are asked for from 0 on. Page 0 proves
    nothing: a list that starts at 1 may answer it with an error, with nothing, or with page 1. Only a page without any
    row, or one that repeats what is known, ends a listing; a short page does not, since sizes may be cut silently.
    """
    if page.number >= _MOST_PAGES:
        return "incomplete"
    if page.number == 0:
        return "more"
    if page.rows == 0:
        return "complete"
    if page.new > 0 or page.number == 1:
        return "more"
    # The page number is ignored, or the last rows repeat. A full page of repeats may hide rows behind it; anything
    # else is all there is. Either way no account is removed before it was asked for by its id.
    return "incomplete" if page.rows == page.asked else "complete"


@dataclass(frozen=True)
class RemovalLimit:
    """How many accounts one sweep may find missing."""

    percent: float
    floor: int

    def allows(self, *, known: int, suspects: int) -> bool:
        """Tell whether a sweep that misses `suspects` of `known` accounts may go on to remove any.

        The floor keeps a handful of accounts from tripping a percentage; 0 % means none at all.
        """
        if suspects == 0:
            return True
        if self.percent <= 0:
            return False
        return suspects <= max(self.floor, known * self.percent / 100)

    def advice(self, *, known: int, suspects: int) -> str:
        """Say why the removal limit stopped a sweep and how to go on."""
        return (
            f"StackOne's listing lacks {suspects} of {known} accounts, more than {self.percent:g} %: nothing was"
            " removed. If they really are gone, run `broker sync --max-removal-percent 100` or POST /v1/sync with"
            ' {"max_removal_percent": 100}; each is still read at StackOne before it is removed.'
        )
