"""The project's auth configs: which providers can be linked, and through which connector profile.

They change rarely and are asked for often, so they are kept for some minutes; while StackOne is away the last ones
known are used.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from app.clock import Clock
from app.errors import AppError
from app.stackone.client import StackOneClient
from app.stackone.models import AuthConfig

logger = structlog.get_logger(__name__)

_FRESH_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 15.0


class AuthConfigs:
    """Keeps what GET /auth_configs said; of many who ask at once, one asks StackOne."""

    def __init__(self, stackone: StackOneClient, clock: Clock) -> None:
        """Ask nothing yet."""
        self._stackone = stackone
        self._clock = clock
        self._known: Sequence[AuthConfig] | None = None
        self._seemed_empty = False
        self._ask_again_at = float("-inf")
        self._turn = asyncio.Lock()

    async def known(self) -> Sequence[AuthConfig] | None:
        """Return the auth configs, or None while StackOne has not told them. Never raises for StackOne's failures."""
        try:
            return await self.get()
        except AppError:
            return None

    async def get(self) -> Sequence[AuthConfig]:
        """Return the auth configs. Raises Unavailable or UpstreamRejected if they are not known and cannot be read."""
        async with self._turn:
            if self._clock.monotonic() < self._ask_again_at and self._known is not None:
                return self._known
            try:
                found = await self._stackone.list_auth_configs()
            except AppError as error:
                if self._known is None:
                    raise
                # The last ones known serve meanwhile, and StackOne is asked again before long.
                self._ask_again_at = self._clock.monotonic() + _RETRY_SECONDS
                logger.warning("auth_configs_stale", code=error.code)
            else:
                # A project that has lost everything it offers is rare; an empty list by mistake would empty every page.
                is_doubtful = not found and bool(self._known) and not self._seemed_empty
                self._seemed_empty = not found
                if is_doubtful:
                    self._ask_again_at = self._clock.monotonic() + _RETRY_SECONDS
                    logger.warning("auth_configs_stale", code="empty")
                else:
                    self._known = found
                    self._ask_again_at = self._clock.monotonic() + _FRESH_SECONDS
            return self._known or ()
