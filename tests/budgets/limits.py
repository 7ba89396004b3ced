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
    "mint": Limit(waits=2, built=0, calls=710, goal=2),
    "mint to reconnect": Limit(waits=3, built=0, calls=1060, goal=3),
    "list": Limit(waits=1, built=0, calls=280, goal=1),
    "list by service key": Limit(waits=2, built=0, calls=500, goal=2),
    "get": Limit(waits=1, built=0, calls=300, goal=1),
    "get by service key": Limit(waits=2, built=0, calls=480, goal=2),
    "confirm": Limit(waits=2, built=0, calls=740, goal=3),
    "webhook": Limit(waits=1, built=0, calls=375, goal=1),
    "webhook, repeated": Limit(waits=1, built=0, calls=350, goal=1),
    # Where the first is on its way when the others come, it is a group of one and a group of nineteen.
    "twenty webhooks at once": Limit(waits=2, built=0, calls=4980, goal=2),
    "events page": Limit(waits=2, built=0, calls=540, goal=2),
    "refresh of one account": Limit(waits=2, built=0, calls=410, goal=2),
    "refresh, nothing due": Limit(waits=1, built=0, calls=80, goal=1),
}
