"""What an answer's status, headers and body say, whoever wrote it: StackOne, or something in front of it. Pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_RETRY_AFTER: Final = 300.0
NOT_FOUND: Final = 404
TOO_MANY: Final = 429
# Beside these, whatever a server or something in front of it says of itself passes: there are more of the 5xx than the
# standard's, and only two of them are for good.
_PASSING: Final = frozenset({408, 425, TOO_MANY})
_LASTING: Final = frozenset({501, 505})
_FIRST_ERROR: Final = 400
_FIRST_SERVER_ERROR: Final = 500


def may_pass(status: int) -> bool:
    """Tell whether the answer may be another one soon, whatever was asked."""
    return status in _PASSING or (status >= _FIRST_SERVER_ERROR and status not in _LASTING)


def is_error(answer: object) -> bool:
    """Tell whether an answer of 2xx is an error all the same: not everything in front of StackOne keeps its status."""
    if not isinstance(answer, Mapping):
        return False
    status = answer.get("statusCode")
    has_failed = isinstance(status, int) and status >= _FIRST_ERROR
    return has_failed or bool(answer.get("error")) or bool(answer.get("errors"))


def says_not_found(content: bytes) -> bool:
    """Tell StackOne's own 404 from that of a gateway or a wrong base URL, which must not look like a deletion."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(body, Mapping)
        and body.get("statusCode") == NOT_FOUND
        and isinstance(body.get("message"), (str, list))
    )


def clock_skew(header: str | None, now: datetime) -> timedelta | None:
    """Return how far StackOne's clock is ahead of ours, as its Date header tells to the second."""
    try:
        return parsedate_to_datetime(header) - now if header else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def retry_after(header: str | None, their_now: datetime) -> float | None:
    """Read Retry-After, capped: ten days of it would stop refreshes, sweeps and erasures for ten days.

    StackOne documents seconds; what stands in front of it may send a date, which goes by its own clock.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header, their_now)
    return min(seconds, LONGEST_RETRY_AFTER) if seconds >= 0 else None


def _seconds_until(date: str, now: datetime) -> float:
    """Return the seconds until an HTTP date, negative for what is none."""
    try:
        moment = parsedate_to_datetime(date)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return -1.0
