"""The sweep's timer: in every process, so that any replica may sweep; the lease lets one of them do it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog

from app.errors import Unavailable, UpstreamRejected
from app.runtime import Runtime
from app.sync import runs
from app.sync.sweep import run_sweep

logger = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
_PAUSE_AFTER_FAILURE_SECONDS = 30.0


@dataclass
class SweepTimer:
    """Sweeps when one is asked for, was interrupted, or is due."""

    runtime: Runtime

    async def run_forever(self) -> None:
        """Look for work until cancelled."""
        while True:
            self.runtime.sweep_requested.clear()
            try:
                if await self.is_due():
                    await run_sweep(self.runtime, by="timer")
            except (Unavailable, UpstreamRejected) as error:
                logger.warning("sweep_interrupted", code=error.code, detail=error.detail)
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self.runtime.sweep_requested.wait()
            except TimeoutError:
                continue

    async def is_due(self) -> bool:
        """Tell whether a sweep waits, was interrupted, or should begin by the clock."""
        async with self.runtime.database.reading() as connection:
            if await runs.unfinished(connection) is not None:
                return True
            last = await runs.recent(connection, 1)
        interval = self.runtime.settings.sync.sweep_interval_seconds
        if interval == 0:
            return False
        if not last or last[0].finished_at is None:
            return True
        age = self.runtime.clock.now() - last[0].finished_at
        # An end in the future was written before the clock was set back; it must not put sweeps off.
        return age >= timedelta(seconds=interval) or age < timedelta(seconds=-interval)
