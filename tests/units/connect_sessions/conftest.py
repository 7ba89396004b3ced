"""What these tests share: a broker in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.broker import Broker, open_broker


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """Open a broker without a policy."""
    async with open_broker(tmp_path) as opened:
        yield opened
