"""What a warm request may cost: the one table that making the broker faster lowers, and nothing may raise.

`waits` is how often the broker waits for PostgreSQL (a flush that is answered; BEGIN, COMMIT and pings count).
`built` is how many statements are put together anew, `compiled` how many are turned into SQL anew.
`calls` is how many Python functions run inside the broker, with StackOne's answer ready; it has a tolerance, since
versions of libraries differ. `goal` is where `waits` has to arrive.
"""

from dataclasses import dataclass

# Share by which a count of calls may exceed its limit.
TOLERANCE = 0.10


@dataclass(frozen=True)
class Limit:
    """The most that one warm request, or one round of a job, may cost."""

    waits: int
    built: int
    calls: int
    goal: int
    compiled: int = 0


LIMITS = {
    "mint": Limit(waits=22, built=7, calls=6320, goal=3),
    "list": Limit(waits=6, built=1, calls=2909, goal=1),
    "list by service key": Limit(waits=12, built=2, calls=3020, goal=2),
    "get": Limit(waits=6, built=1, calls=2610, goal=1),
    "get by service key": Limit(waits=12, built=2, calls=2648, goal=2),
    "confirm": Limit(waits=23, built=8, calls=6469, compiled=1, goal=3),
    "webhook": Limit(waits=7, built=2, calls=2334, goal=1),
    "webhook, repeated": Limit(waits=6, built=1, calls=1761, goal=1),
    # The first is on its way when the others come: a group of one and a group of nineteen.
    "twenty webhooks at once": Limit(waits=135, built=40, calls=52_000, goal=2),
    "events page": Limit(waits=13, built=3, calls=3295, goal=2),
    "refresh of one account": Limit(waits=15, built=5, calls=3114, compiled=1, goal=2),
    "refresh, nothing due": Limit(waits=6, built=1, calls=882, goal=1),
}
