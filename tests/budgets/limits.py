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
    "mint": Limit(waits=2, built=0, calls=645, goal=2),
    "mint to reconnect": Limit(waits=3, built=0, calls=965, goal=3),
    "list": Limit(waits=1, built=0, calls=240, goal=1),
    "list by service key": Limit(waits=2, built=0, calls=435, goal=2),
    "get": Limit(waits=1, built=0, calls=260, goal=1),
    "get by service key": Limit(waits=2, built=0, calls=415, goal=2),
    "confirm": Limit(waits=2, built=0, calls=675, goal=3),
    "webhook": Limit(waits=1, built=0, calls=340, goal=1),
    "webhook, repeated": Limit(waits=1, built=0, calls=310, goal=1),
    # Where the first is on its way when the others come, it is a group of one and a group of nineteen.
    "twenty webhooks at once": Limit(waits=2, built=0, calls=4800, goal=2),
    "events page": Limit(waits=2, built=0, calls=470, goal=2),
    "refresh of one account": Limit(waits=2, built=0, calls=390, goal=2),
    "refresh, nothing due": Limit(waits=1, built=0, calls=60, goal=1),
}
