"""What was acknowledged, compared with what is there."""

from contextlib import suppress
from typing import Final

import sqlalchemy as sa

from app.connect_sessions.tables import Status, connect_sessions
from app.linked_accounts.tables import account_events
from app.sync.tables import SweepState, sweeps
from tests.endurance.cluster import until
from tests.endurance.load import Record
from tests.endurance.stand import Stand
from tests.support.databases import engine_of

_SETTLED_WITHIN_SECONDS: Final = 180.0


async def lost(database_url: str, record: Record) -> list[str]:
    """Name what was acknowledged and is not there."""
    engine = engine_of(database_url)
    async with engine.connect() as connection:
        completed = connect_sessions.c.status != Status.MINTING
        sessions = set((await connection.execute(sa.select(connect_sessions.c.id).where(completed))).scalars())
        digest = account_events.c.digest
        digests = set((await connection.execute(sa.select(digest).where(digest.is_not(None)))).scalars())
        # One that StackOne did not let come to its end has its reason written down.
        finished = sweeps.c.state.in_([SweepState.DONE, SweepState.STOPPED, SweepState.FAILED])
        swept = set((await connection.execute(sa.select(sweeps.c.id).where(finished))).scalars())
    await engine.dispose()
    return [
        *(f"session {one}" for one in sorted(record.sessions - sessions)),
        *(f"webhook {one.hex()}" for one in sorted(record.digests - digests)),
        *(f"sweep {one}" for one in sorted(record.sweeps - swept)),
    ]


async def settle(database_url: str, stand: Stand, record: Record) -> list[str]:
    """Wait until the store is StackOne's; name what is lost or stays different."""

    async def is_equal() -> bool:
        return not await stand.differences() and not await lost(database_url, record)

    with suppress(TimeoutError):
        await until(is_equal, what="the store is StackOne's", within=_SETTLED_WITHIN_SECONDS)
    differences = await stand.differences()
    return [*await lost(database_url, record), *(f"account {one} differs" for one in differences)]
