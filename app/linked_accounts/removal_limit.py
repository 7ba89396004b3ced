"""How many accounts may be found missing before removing any is stopped. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RemovalLimit:
    """How many accounts one sweep, or the refreshes of some minutes, may find missing."""

    percent: float
    floor: int

    def allows(self, *, known: int, suspects: int) -> bool:
        """Tell whether any of `known` accounts may be removed where `suspects` of them are missing.

        The floor keeps a handful of accounts from tripping a percentage; 0 % means none at all.
        """
        if suspects == 0:
            return True
        if self.percent <= 0:
            return False
        return suspects <= max(self.floor, known * self.percent / 100)

    def enough_for(self, suspects: int) -> int:
        """Return from how many known accounts on so many missing ones are allowed, whatever the floor."""
        return math.ceil(suspects * 100 / self.percent) + 1 if self.percent > 0 else 0

    def advice(self, *, known: int, suspects: int) -> str:
        """Say why the removal limit stopped a sweep and how to go on."""
        return (
            f"StackOne's listing lacks {suspects} of {known} accounts, more than {self.percent:g} %: nothing was"
            " removed. If they really are gone, run `broker sync --max-removal-percent 100` or POST /v1/sync with"
            ' {"max_removal_percent": 100}; each is still read at StackOne before it is removed.'
        )
