"""Where StackOne's listing of accounts ends, and whether it can be relied on."""

from datetime import UTC, datetime

import pytest

from app.errors import Unavailable, UpstreamRejected
from app.stackone.listing import Listing
from app.stackone.models import Account, AccountPage

pytestmark = pytest.mark.anyio

_SIZE = 3
_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Upstream:
    """Answers these pages, from page 0 on, and nothing behind them; None stands for a page that it refuses."""

    def __init__(self, pages: list[list[int] | None]) -> None:
        self.pages = pages
        self.asked: list[int] = []

    async def read(self, number: int) -> AccountPage:
        """Answer as `read_page` of a listing."""
        self.asked.append(number)
        ids = self.pages[number] if number < len(self.pages) else []
        if ids is None:
            message = "refused"
            raise UpstreamRejected(message)
        accounts = [Account(id=str(n), provider="p", status="active", updated_at=_AT) for n in ids if n > 0]
        return AccountPage(accounts, unreadable=len(ids) - len(accounts))


async def walk(upstream: Upstream, *, next_page: int = 0, most_pages: int = 40) -> tuple[bool | None, set[str]]:
    """Go through the whole listing; return whether it was complete, and what it showed."""
    listing = Listing(upstream.read, page_size=_SIZE, next_page=next_page, most_pages=most_pages)
    seen: set[str] = set()
    while not listing.is_over:
        page = await listing.read()
        new = {account.id for account in page.accounts} - seen
        seen |= new
        listing.passed(new=len(new))
    return listing.complete, seen


@pytest.mark.parametrize(
    ("pages", "complete", "listed"),
    [
        pytest.param([[], []], True, 0, id="nothing at all"),
        pytest.param([[1, 2, 3], [1, 2, 3], [4, 5]], True, 5, id="first page is 1, and 0 answers it too"),
        pytest.param([[], [1, 2, 3], [4, 5]], True, 5, id="first page is 1, and 0 is empty"),
        pytest.param([[1, 2, 3], [4, 5, 6], [7]], True, 7, id="first page is 0"),
        pytest.param([[1, 2, 3]], True, 3, id="first page is 0, and there is one"),
        pytest.param([[1, 2], [1, 2], [3, 4], [5]], True, 5, id="pages are cut to 2"),
        pytest.param([[1, 2, 3], [1, 2, 3], [3, 4, 5], [5]], True, 5, id="rows repeat"),
        pytest.param([[1, 2, 3]] * 9, False, 3, id="the page number is ignored, and the page is full"),
        pytest.param([[1, 2]] * 9, True, 2, id="the page number is ignored, and all fits"),
        pytest.param([[1, 2, 3, 4, 5]] * 9, True, 5, id="paging is ignored altogether"),
    ],
)
async def test_a_listing_ends_where_nothing_new_comes(
    pages: list[list[int] | None], *, complete: bool, listed: int
) -> None:
    was_complete, seen = await walk(Upstream(pages))
    assert (was_complete, len(seen)) == (complete, listed)


@pytest.mark.parametrize(
    ("pages", "complete", "listed"),
    [
        pytest.param([None, [1, 2, 3], [4]], True, 4, id="page 0 is refused: pages begin at 1"),
        pytest.param([[1, 2, 3], [4, 5, 6], None, [7]], False, 7, id="a page in the middle is refused"),
        pytest.param([[1], [2], None, None, [3], None, [4]], False, 3, id="three refused pages end it"),
        pytest.param([[1, 2, 3], [4, 0], [5]], False, 5, id="a row cannot be read"),
        pytest.param([[0], [1, 2]], False, 2, id="a row of page 0 cannot be read"),
    ],
)
async def test_a_listing_with_holes_is_read_on_and_is_not_complete(
    pages: list[list[int] | None], *, complete: bool, listed: int
) -> None:
    was_complete, seen = await walk(Upstream(pages))
    assert (was_complete, len(seen)) == (complete, listed)


async def test_a_listing_whose_first_page_is_refused_is_none() -> None:
    with pytest.raises(UpstreamRejected):
        await walk(Upstream([None, None]))


async def test_a_listing_that_always_has_news_is_given_up() -> None:
    upstream = Upstream([[3 * n + 1, 3 * n + 2, 3 * n + 3] for n in range(99)])
    assert (await walk(upstream))[0] is False
    assert len(upstream.asked) == 41


async def test_a_walk_is_taken_up_where_it_was_left() -> None:
    upstream = Upstream([[1, 2, 3], [4, 5, 6], [7]])
    assert await walk(upstream, next_page=2) == (True, {"7"})
    assert upstream.asked == [2, 3]


async def test_a_page_that_could_not_be_read_is_read_again() -> None:
    tries: list[int] = []

    async def read(number: int) -> AccountPage:
        tries.append(number)
        if len(tries) == 1:
            message = "away"
            raise Unavailable(message)
        return AccountPage(())

    listing = Listing(read, page_size=_SIZE, next_page=5)
    with pytest.raises(Unavailable):
        await listing.read()
    await listing.read()
    listing.passed(new=0)
    assert (tries, listing.complete, listing.next_page) == ([5, 5], True, 6)
