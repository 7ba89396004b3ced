"""What a call is, which answers are tried again and when, and which error an answer is. Nothing here waits or sends."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

import httpx2

from connect_broker_client.errors import (
    BrokerError,
    KeyRefused,
    NotAllowed,
    NotFound,
    PositionGone,
    RequestRefused,
    StateChanged,
    TellOperator,
    TryLater,
)

_ERRORS: Final[Mapping[int, type[BrokerError]]] = {
    400: RequestRefused,
    401: KeyRefused,
    403: NotAllowed,
    404: NotFound,
    405: RequestRefused,
    409: StateChanged,
    410: PositionGone,
    413: RequestRefused,
    415: RequestRefused,
    422: RequestRefused,
    429: TryLater,
    502: TellOperator,
    503: TryLater,
    504: TryLater,
}
_TOO_MANY: Final = 429
_AWAY: Final = frozenset({503, 504})
_BUCKET: Final = 10.0
_EARNED: Final = 0.1
_LONGEST_DETAIL: Final = 500


@dataclass(frozen=True)
class Retries:
    """How much is tried again.

    A call is tried up to `attempts` times and for no longer than `budget_seconds` in all, pauses included: a
    Retry-After that does not fit ends it at once. Beside that, retries of all calls together are bounded to a tenth of
    the calls that succeed (and ten): a broker that is down is not asked four times as often.
    """

    attempts: int = 4
    budget_seconds: float = 30.0
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 10.0


@dataclass
class RetryBudget:
    """The retries that all calls of one client may still make."""

    left: float = _BUCKET

    def earn(self) -> None:
        """Note that a call succeeded."""
        self.left = min(_BUCKET, self.left + _EARNED)

    def take(self) -> bool:
        """Take one retry; False where there is none left."""
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(frozen=True)
class Call:
    """One request to the broker."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    wait: float = 0.0
    """How long the broker is asked to wait with its answer; comes on top of the timeout."""

    @property
    def is_repeatable(self) -> bool:
        """Whether doing it twice is doing it once (RFC 9110 9.2.2)."""
        return self.method != "POST"

    def parameters(self) -> list[tuple[str, str | int | float | bool | None]]:
        """Return the query as the broker reads it; None is left out."""
        given: list[tuple[str, str | int | float | bool | None]] = []
        for name, value in self.query.items():
            several = value if isinstance(value, list | tuple | set | frozenset) else (value,)
            given += [(name, _text(one)) for one in several if one is not None]
        return given

    def content(self) -> dict[str, Any] | None:
        """Return the body; None is left out."""
        return None if self.body is None else {name: value for name, value in self.body.items() if value is not None}


def path(*segments: str) -> str:
    """Write a path; an id can hold anything. Raises ValueError for one that would be read as another path."""
    for segment in segments:
        # Quoted or not, clients and proxies resolve these, and the call would be for something else.
        if segment in {"", ".", ".."}:
            raise ValueError("an id cannot be empty, a dot or two dots")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def texts(given: str | Sequence[str] | None) -> list[str]:
    """Return one text or several as a list."""
    return [given] if isinstance(given, str) else list(given or ())


def retry_pause(call: Call, failure: BrokerError | httpx2.TransportError, tries: int, retries: Retries) -> float | None:
    """Return how long to wait before the next try, None where there is to be none."""
    if tries >= retries.attempts or not _is_worth_it(call, failure):
        return None
    pause = min(retries.longest_pause_seconds, retries.first_pause_seconds * 2.0 ** (tries - 1))
    # Full jitter: those who failed together do not come back together.
    pause *= 0.5 + random.random() / 2  # noqa: S311  no secret
    asked = failure.retry_after if isinstance(failure, BrokerError) else None
    return max(pause, asked or 0.0)


def _is_worth_it(call: Call, failure: BrokerError | httpx2.TransportError) -> bool:
    if isinstance(failure, httpx2.TransportError):
        # What never left was not done.
        return call.is_repeatable or isinstance(failure, httpx2.ConnectError | httpx2.ConnectTimeout)
    if failure.status == _TOO_MANY:
        return True
    # A 503 of the broker's own says that it did not do it; another's, such as a proxy's, does not.
    return failure.status in _AWAY and (call.is_repeatable or failure.code is not None)


def error_of(response: httpx2.Response) -> BrokerError:
    """Return the error that an answer is."""
    try:
        told = response.json()
    except (ValueError, UnicodeDecodeError):
        told = None
    problem = told if isinstance(told, dict) and isinstance(told.get("code"), str) else {}
    kind = _ERRORS.get(response.status_code, TellOperator)
    message = str(problem.get("detail") or problem.get("title") or f"the broker answered {response.status_code}")
    return kind(
        message[:_LONGEST_DETAIL],
        status=response.status_code,
        code=problem.get("code"),
        request_id=problem.get("request_id") or response.headers.get("x-request-id"),
        retry_after=_retry_after(response.headers.get("retry-after")),
        errors=_mistakes(problem.get("errors")),
    )


def unreachable(error: httpx2.TransportError) -> TryLater:
    """Return the error for a broker that does not answer."""
    return TryLater(f"the broker does not answer ({type(error).__name__})")


def _mistakes(told: object) -> tuple[tuple[str, str], ...]:
    rows = told if isinstance(told, list) else []
    return tuple((str(row.get("location")), str(row.get("message"))) for row in rows if isinstance(row, dict))


def _retry_after(header: str | None) -> float | None:
    if header is None:
        return None
    if header.isascii() and header.isdecimal():
        return float(header[:9])
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs its zone")
        return value.isoformat()
    return str(value)
