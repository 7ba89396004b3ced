"""The repair loop: when a broken account is told of again."""

import re
from datetime import timedelta
from functools import cached_property

from pydantic import Field, field_validator

from app.settings.section import Section

_DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        message = "write a number and m, h or d, such as 90m, 12h or 3d"
        raise ValueError(message)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


class RepairSettings(Section):
    """What happens while an account is broken."""

    remind: tuple[str, ...] = Field(
        default=("1d", "3d", "7d"),
        max_length=20,
        description="After which times an account that still needs somebody to sign in is told of again"
        " (account.still_broken, once each); an empty list for never.",
    )

    @field_validator("remind")
    @classmethod
    def _growing(cls, remind: tuple[str, ...]) -> tuple[str, ...]:
        durations = [_duration(text) for text in remind]
        if sorted(set(durations)) != durations:
            message = "each time is longer than the one before"
            raise ValueError(message)
        return remind

    @cached_property
    def remind_after(self) -> tuple[timedelta, ...]:
        """The times."""
        return tuple(_duration(text) for text in self.remind)
