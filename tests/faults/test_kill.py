"""kill -9 at every await: no acknowledged event is lost, nothing happens twice, and no hand is needed afterwards.

Every `_STRIDE`th await is tried in the small profile; BROKER_KILL_STRIDE=1 tries each of them.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.graveyard import Graveyard, open_graveyard, token
from tests.support.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases, pytest.mark.timeout(3600)]

_STRIDE = int(os.environ.get("BROKER_KILL_STRIDE", "41"))
# The small profile looks at the first awaits only, where each death costs two starts of a process.
_IS_THOROUGH = _STRIDE < 10
_FURTHEST = 400 if _IS_THOROUGH else 130


@pytest.fixture
async def graveyard(database_url: str, tmp_path: Path) -> AsyncIterator[Graveyard]:
    """Open a place for brokers to die."""
    async with open_graveyard(database_url, tmp_path / "broker.log") as opened:
        yield opened


def told(what: str, graveyard: Graveyard, awaits: int) -> None:
    """Write the figures down where somebody asked for them."""
    assert awaits > 1, f"{what} was never interrupted: nothing was shown"
    if file := os.environ.get("BROKER_KILL_REPORT"):
        database = graveyard.database_url.partition(":")[0]
        figures = {"what": what, "database": database, "awaits": awaits, "kills": graveyard.deaths}
        with Path(file).open("a") as report:
            report.write(json.dumps(figures) + "\n")


async def test_a_webhook_interrupted_anywhere_is_kept_once(graveyard: Graveyard) -> None:
    for die_at in range(1, _FURTHEST, _STRIDE):
        account = graveyard.link()
        await graveyard.raise_broker(scope="request", die_at=die_at + 3, sync={"enabled": False})
        status = await graveyard.deliver(account)
        survived = graveyard.is_alive() and status == 200
        await graveyard.bury()
        if status == 200:
            assert await graveyard.history(account.id) == ["hint"]
        await graveyard.time_passes()
        await graveyard.raise_broker()
        # StackOne sends what was not acknowledged once more; here it does so in any case.
        assert await graveyard.deliver(account) == 200

        async def known(account_id: str = account.id) -> bool:
            return account_id in await graveyard.living()

        await eventually(known, within=15)
        assert await graveyard.history(account.id) == ["hint", "account.linked"]
        await graveyard.bury()
        if survived:
            break
    else:
        assert not _IS_THOROUGH, "it never got through"
    await graveyard.assert_feed_is_whole()
    told("webhook", graveyard, die_at)


async def test_a_refresh_interrupted_anywhere_is_done_by_the_next(graveyard: Graveyard) -> None:
    for die_at in range(1, _FURTHEST, _STRIDE):
        accounts = [graveyard.link() for _ in range(3)]
        await graveyard.raise_broker(sync={"enabled": False})
        for account in accounts:
            assert await graveyard.deliver(account) == 200
        await graveyard.bury()
        await graveyard.raise_broker(scope="refresh", die_at=die_at)
        wanted = {account.id for account in accounts}

        async def dead_or_done(ids: frozenset[str] = frozenset(wanted)) -> bool:
            return not graveyard.is_alive() or ids <= await graveyard.living()

        await eventually(dead_or_done, within=15)
        survived = graveyard.is_alive()
        await graveyard.bury()
        await graveyard.time_passes()
        await graveyard.raise_broker()

        async def done(ids: frozenset[str] = frozenset(wanted)) -> bool:
            return ids <= await graveyard.living()

        await eventually(done, within=15)
        await graveyard.bury()
        for account in accounts:
            assert await graveyard.history(account.id) == ["hint", "account.linked"]
        if survived:
            break
    else:
        assert not _IS_THOROUGH, "it never got through"
    await graveyard.assert_feed_is_whole()
    told("refresh", graveyard, die_at)


async def test_a_sweep_interrupted_anywhere_is_taken_up(graveyard: Graveyard) -> None:
    sweeping = {"sweep_interval_seconds": 0.001, "sweep_page_size": 4, "claim_seconds": 5, "poll_seconds": 0.05}
    accounts = [graveyard.link() for _ in range(9)]

    async def equal() -> bool:
        return await graveyard.living() == {account.id for account in graveyard.project.accounts}

    async def dead_or_equal() -> bool:
        return not graveyard.is_alive() or await equal()

    await graveyard.raise_broker(sync=sweeping)
    await eventually(equal, within=30)
    for die_at in range(1, _FURTHEST, _STRIDE):
        await graveyard.bury()
        await graveyard.time_passes()
        gone, fresh = accounts.pop(), graveyard.link()
        graveyard.project.accounts.delete(gone.id)
        accounts.append(fresh)
        await graveyard.raise_broker(scope="sweep", die_at=die_at, sync=sweeping)
        await eventually(dead_or_equal, within=30)
        survived = graveyard.is_alive()
        await graveyard.bury()
        await graveyard.time_passes()
        await graveyard.raise_broker(sync=sweeping)
        await eventually(equal, within=30)
        assert await graveyard.history(gone.id) == ["account.linked", "account.unlinked"]
        assert await graveyard.history(fresh.id) == ["account.linked"]
        if survived:
            break
    else:
        assert not _IS_THOROUGH, "it never got through"
    await graveyard.assert_feed_is_whole()
    told("sweep", graveyard, die_at)


async def test_a_disconnect_interrupted_anywhere_happens_once_or_can_be_repeated(graveyard: Graveyard) -> None:
    for die_at in range(1, _FURTHEST, _STRIDE):
        account = graveyard.link()
        path = f"/v1/linked-accounts/{account.id}"
        await graveyard.raise_broker(sync={"enabled": False})
        assert await graveyard.call("POST", f"{path}/confirm", headers=token()) == 200
        await graveyard.bury()
        await graveyard.raise_broker(scope="request", die_at=die_at + 3, sync={"enabled": False})
        status = await graveyard.call("DELETE", path, headers=token())
        survived = graveyard.is_alive() and status == 204
        await graveyard.bury()
        requested = "account.disconnect_requested" in await graveyard.history(account.id)
        assert requested or status is None
        await graveyard.time_passes()
        await graveyard.raise_broker()
        if not requested:
            assert graveyard.project.accounts.find(account.id) is not None
            assert await graveyard.call("DELETE", path, headers=token()) == 204

        async def gone(account_id: str = account.id) -> bool:
            return account_id not in await graveyard.living()

        await eventually(gone, within=15)
        assert graveyard.project.accounts.find(account.id) is None
        assert await graveyard.history(account.id) == [
            "account.linked",
            "account.disconnect_requested",
            "account.unlinked",
        ]
        await graveyard.bury()
        if survived:
            break
    else:
        assert not _IS_THOROUGH, "it never got through"
    await graveyard.assert_feed_is_whole()
    told("disconnect", graveyard, die_at)
