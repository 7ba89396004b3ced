"""What the metrics say of a state: the database's is read here, every few seconds, and the event loop's is measured.

Each replica reads the same from the database: panels and alerts take the maximum.
"""

import asyncio
import math
from collections.abc import Collection, Iterable
from typing import Final

from prometheus_client import Counter

from app.db.failures import Cause
from app.identity.service_keys.expiry import read_expiry
from app.limits import Rate
from app.linked_accounts.decide import Outcome
from app.linked_accounts.feed import last_position
from app.linked_accounts.store import count_due_of_all_owners, count_needing_reauth, count_unowned
from app.metrics import Metrics, show_age
from app.push.deliver import PushOutcome
from app.push.standing import standings
from app.runtime import Runtime
from app.stackone.breaker import BreakerState
from app.stackone.budget import Priority
from app.sync import runs
from app.sync.inbox import Outcome as Received
from app.sync.runs import Past
from app.sync.suspects import oldest_due_at
from app.sync.tables import SweepState

_FINISHED: Final = (SweepState.DONE, SweepState.STOPPED, SweepState.FAILED)
_LOOK_SECONDS: Final = 0.5


async def read_gauges(runtime: Runtime) -> int:
    """Read what the database knows; return 0, since there is nothing to repeat at once."""
    metrics, now = runtime.metrics, runtime.clock.now()
    async with runtime.database.reading() as connection:
        due = await count_due_of_all_owners(connection)
        oldest = await oldest_due_at(connection)
        unowned = await count_unowned(connection)
        needing_reauth = await count_needing_reauth(connection)
        sweeps = await runs.past(connection)
        current = await runs.unfinished(connection)
        head = await last_position(connection)
        destinations = await standings(connection, [one.name for one in runtime.settings.push.destinations], head=head)
        keys = await read_expiry(connection, now)
    metrics.due.set(due)
    show_age(metrics.due_age, oldest)
    metrics.unowned.set(unowned)
    metrics.needing_reauth.set(needing_reauth)
    metrics.feed_position.set(head)
    for one in destinations:
        metrics.push_pending.labels(one.destination).set(one.pending)
        metrics.push_dead.labels(one.destination).set(one.dead)
        show_age(metrics.push_age.labels(one.destination), one.oldest_at)
    metrics.service_keys.labels("ending").set(keys.ending)
    metrics.service_keys.labels("ended").set(keys.ended)
    metrics.service_key_expiry.set(keys.first_ends_at.timestamp() if keys.first_ends_at is not None else math.inf)
    metrics.sweep_running.set(current is not None and current.state is SweepState.RUNNING)
    metrics.sweep_interval.set(runtime.settings.sync.sweep_interval_seconds)
    _show_sweeps(metrics, sweeps)
    metrics.gauges_read.set(now.timestamp())
    return 0


def _show_sweeps(metrics: Metrics, sweeps: Past) -> None:
    if sweeps.done_at is not None:
        metrics.last_sweep.set(sweeps.done_at.timestamp())
    if sweeps.last is None:
        return
    for state in _FINISHED:
        metrics.last_sweep_state.labels(state.value).set(sweeps.last.state is state)
    for kind in ("added", "changed", "removed"):
        metrics.sweep_drift.labels(kind).set(0 if sweeps.is_first_fill else getattr(sweeps.last, kind))


def begin_at_zero(runtime: Runtime, jobs: Collection[str] = ()) -> None:
    """Show the counters whose labels are known before anything is counted.

    A series that begins with its first failure has not risen, to Prometheus, and no alert would see that one.
    """
    metrics, settings = runtime.metrics, runtime.settings
    known: list[tuple[Counter, Iterable[str]]] = [
        (metrics.authentication, ("browser", "service")),
        (metrics.limit_refusals, (rate.value for rate in Rate)),
        (metrics.database_failures, (cause.value for cause in Cause)),
        (metrics.breaker_changes, (state.name.lower() for state in BreakerState)),
        (metrics.budget_refusals, (priority.label for priority in Priority)),
        (metrics.webhooks, ("refused", *(outcome.value for outcome in Received))),
        (metrics.webhook_secret, map(str, range(len(settings.stackone.webhook_secrets)))),
        (metrics.refreshes, ("failed", "lost", *(outcome.value for outcome in Outcome))),
        (metrics.sweeps, (state.value for state in _FINISHED)),
        (metrics.loop_failures, jobs),
    ]
    for counter, labels in known:
        for label in labels:
            counter.labels(label)
    for destination in settings.push.destinations:
        for outcome in PushOutcome:
            metrics.pushes.labels(destination.name, outcome.value)


async def watching_loop(metrics: Metrics) -> None:
    """Measure how late the event loop is, and how much is on it, until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        woken_at = loop.time() + _LOOK_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)
        metrics.loop_lag.observe(max(loop.time() - woken_at, 0.0))
        metrics.loop_tasks.set(len(asyncio.all_tasks(loop)))
