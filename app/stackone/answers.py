"""What an answer's status, headers and body say, whoever wrote it: StackOne, or something in front of it. Pure."""

import json
import re
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
_NO_PATH: Final = re.compile(
    r"(?i)cannot (?:get|post|put|patch|delete) /|route (?:get|post|put|patch|delete):|no route"
)
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
    return isinstance(body, Mapping) and is_stackones_error(body, NOT_FOUND)


def is_stackones_error(body: Mapping[str, object], status: int) -> bool:
    """Tell whether an error has the shape of StackOne's own, and is not about the path that was asked for.

    What StackOne is built with, and gateways too, answer in the same shape where there is no such path.
    """
    message = body.get("message")
    if body.get("statusCode") != status or not isinstance(message, (str, list)):
        return False
    is_about_path = status == NOT_FOUND and any(
        isinstance(one, str) and _NO_PATH.match(one) for one in (message, *message)
    )
    # Azure's API Management says this of any path, and has no time in it as StackOne's errors do.
    return not is_about_path and (message != "Resource not found" or "timestamp" in body)


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
