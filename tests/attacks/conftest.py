"""What the attacks share: a world that a whole module attacks, because opening one costs more than most attacks do."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.attacks.opened import open_attacked
from tests.support.databases import fresh_database
from tests.support.world import World


@pytest.fixture(scope="module")
def attacked_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Make a database for a module: of SQLite, or of both kinds for a module marked `both_databases`."""
    yield from fresh_database(request)


@pytest.fixture(scope="module")
async def attacked(attacked_url: str) -> AsyncIterator[World]:
    """Open a world that does nothing by itself: whatever is written in it, a request has written."""
    async with open_attacked(attacked_url) as world:
        yield world
