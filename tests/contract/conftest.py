"""The sandbox, walked through once, and one that each test finds as it was at the start."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.facts import FAMILIES, Facts, read_facts
from tests.contract.wire import Exchange, Wire, open_sender, walk


@pytest.fixture(scope="session")
async def exchanges() -> list[Exchange]:
    """Walk through all of the sandbox and return everything that it said."""
    async with open_sender() as opened:
        await walk(opened)
    return opened.exchanges


@pytest.fixture(scope="module")
async def kept_wire() -> AsyncIterator[Wire]:
    """Open a sandbox for all tests that change it."""
    async with open_sender() as opened:
        yield opened


@pytest.fixture
def wire(kept_wire: Wire) -> Wire:
    """Put the sandbox back to its beginning."""
    kept_wire.start_over()
    return kept_wire


@pytest.fixture(scope="session")
def facts() -> dict[str, Facts]:
    """Read the tables."""
    return {family: read_facts(family) for family in FAMILIES}
