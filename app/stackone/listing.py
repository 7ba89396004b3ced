"""The one way through StackOne's listing of accounts, page by page: where it ends, and whether it can be relied on.

StackOne documents neither the number of the first page nor a total, so pages are asked for from 0 on. Page 0 proves
nothing: a list that starts at 1 may answer it with an error, with nothing, or with page 1. Only a page without any row,
or one that repeats what is known, ends a listing; a short page does not, since sizes may be cut silently.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import structlog

from app.errors import UpstreamRejected
from app.stackone.models import AccountPage

logger = structlog.get_logger(__name__)

# Beyond this many pages a listing is not a listing.
_MOST_PAGES: Final = 200_000
_MOST_REFUSED_PAGES: Final = 3


class Verdict(Enum):
    """What a page says about the end of its listing."""

    MORE = auto()
    COMPLETE = auto()
    INCOMPLETE = auto()


@dataclass(frozen=True)
class Page:
    """One page, as far as the end of its listing is concerned."""

    number: int
    asked: int
    rows: int
    new: int
    """Rows that no earlier page of this listing had."""


def judge_page(page: Page, *, most_pages: int = _MOST_PAGES) -> Verdict:
    """Say whether a listing goes on behind this page, has come to its end, or cannot be relied on. Pure."""
    if page.number >= most_pages:
        return Verdict.INCOMPLETE
    if page.number == 0:
        return Verdict.MORE
    if page.rows == 0:
        return Verdict.COMPLETE
    if page.new > 0 or page.number == 1:
        return Verdict.MORE
    # The page number is ignored, or the last rows repeat. A full page of repeats may hide rows behind it; anything
    # else is all there is. Either way no account is removed before it was asked for by its id.
    return Verdict.INCOMPLETE if page.rows == page.asked else Verdict.COMPLETE


class Listing:
    """A walk through a listing: `read` the next page, tell what of it was `new`, until it `is_over`.

    One page that StackOne refuses makes the listing incomplete, but what other pages show is still of use; several
    such pages end it.
    """

    def __init__(
        self,
        read_page: Callable[[int], Awaitable[AccountPage]],
        *,
        page_size: int,
        next_page: int = 0,
        most_pages: int = _MOST_PAGES,
    ) -> None:
        """Begin at `next_page`; `read_page` asks StackOne for the page of a number."""
        self._read_page = read_page
        self._page_size = page_size
        self._most_pages = most_pages
        self._refused = 0
        self._has_holes = False
        self._verdict = Verdict.MORE
        self._page: AccountPage | None = None
        self.next_page = next_page

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to read."""
        return self._verdict is not Verdict.MORE

    @property
    def complete(self) -> bool | None:
        """Whether the listing has shown everything; None while that is open."""
        if self._has_holes or self._verdict is Verdict.INCOMPLETE:
            return False
        return True if self._verdict is Verdict.COMPLETE else None

    async def read(self) -> AccountPage:
        """Read the next page; one that StackOne refuses is empty. Raises UpstreamRejected if it refuses the first."""
        try:
            self._page = await self._read_page(self.next_page)
        except UpstreamRejected as error:
            if self.next_page == 1:
                raise
            if self.next_page > 1:
                logger.warning("listing_page_refused", page=self.next_page, detail=error.detail)
                self._refused += 1
                self._has_holes = True
            self._page = None
            return AccountPage(())
        if self._page.unreadable:
            logger.warning("listing_rows_unreadable", page=self.next_page, rows=self._page.unreadable)
            self._has_holes = True
        return self._page

    def passed(self, *, new: int) -> None:
        """Go on behind the page just read, of which `new` rows were on no earlier page."""
        if self._page is not None:
            page = Page(self.next_page, self._page_size, self._page.rows, new)
            self._verdict = judge_page(page, most_pages=self._most_pages)
        elif self._refused >= _MOST_REFUSED_PAGES:
            self._verdict = Verdict.INCOMPLETE
        self.next_page += 1
