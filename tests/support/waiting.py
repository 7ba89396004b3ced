"""Waiting for something that happens elsewhere: asked often, and never without an end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


async def eventually(ask: Callable[[], Awaitable[Result]], *, within: float = 10.0) -> Result:
    """Ask until the answer is truthy; fail with the last answer after `within` seconds."""
    last: Result | None = None
    try:
        async with asyncio.timeout(within):
            while True:
                last = await ask()
                if last:
                    return last
                await asyncio.sleep(0.02)
    except TimeoutError:
        message = f"not within {within} s; the last answer was {last!r}"
        raise AssertionError(message) from None
