"""How one call to StackOne is made: bounded in time, size and number, with errors that say what to do next.

From the outside in: room in the budget of calls, a total deadline with its retries, the circuit breaker, and one
exchange over HTTP whose answer is read up to a size. A call is tried again only where a repeat is harmless: reads, and
a connect session (a second one simply stays unused). A delete is not: the account may have become another owner's.
"""

import asyncio
import base64
import json
import random
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, Final

import httpx2
import structlog

from app.clock import Clock
from app.errors import Unavailable, UpstreamRejected, tls_failure
from app.metrics import Metrics
from app.settings import StackOneSettings
from app.stackone import answers
from app.stackone.breaker import Breaker, BreakerOpen, BreakerState
from app.stackone.budget import Budget, BudgetSpent, Priority
from app.stackone.models import AccountGone
from app.stackone.refusals import read_refusal
from app.stackone.turns import Turns

logger = structlog.get_logger(__name__)

# What carries a request and brings the answer; tests hand their own in.
Transport = httpx2.AsyncBaseTransport

# An old StackOne guide says that requests without a user agent may be refused by its edge.
_USER_AGENT: Final = b"connect-broker"
_MOST_ADDRESSES: Final = 256
_DEFAULT_RETRY_AFTER: Final = 5.0
_BUDGET_SPENT: Final = "the broker has used up its calls to StackOne for the moment"
_BREAKER_OPEN: Final = "StackOne failed too often just now: calls to it are held back for a moment"
_RATE_LIMITED: Final = "StackOne is limiting the rate of the broker's calls"
_FOREIGN_404: Final = "what answered 404 is not StackOne: a gateway, or a wrong base URL"
_UNREADABLE: Final = "StackOne's answer is not readable JSON"
_DISGUISED: Final = "StackOne's answer says that it is fine, and holds an error"
_UNREACHABLE: Final = "no connection to StackOne can be made"
_TIMED_OUT: Final = "StackOne did not answer in time"
_CUT: Final = "StackOne's answer was cut off or garbled"
_TOO_LARGE: Final = "StackOne's answer is larger than the broker reads"
_ITS_FAULT: Final = "nothing here, if it passes; else see StackOne's status page, and ask its support"
# By the cause that the metric counts.
_REMEDIES: Final[Mapping[str, str]] = {
    "budget_spent": "raise BROKER_STACKONE__REQUESTS_PER_MINUTE if StackOne allows your key more; else wait",
    "breaker_open": "see why the calls before it failed (stackone_unavailable); it tries again by itself",
    "status_429": "something else calls StackOne with the same key: give the broker one of its own",
    "unreachable": "check BROKER_STACKONE__BASE_URL, this machine's network and DNS, and StackOne's status page",
    "tls": "name StackOne's authority, or that of the proxy between, in BROKER_TLS__CA_FILE",
    "timeout": "see StackOne's status page and the network between; else raise BROKER_STACKONE__TIMEOUT_SECONDS",
    "foreign_404": "correct BROKER_STACKONE__BASE_URL, or the gateway between",
}
_PATH_WORDS: Final = frozenset({"", "accounts", "v2", "connect_sessions", "authenticate", "auth_configs"})
_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
# Of many small ones, each costs a copy of all that follow it.
_MOST_MEMBERS: Final = 100
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 3.0
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class _TransientError(Exception):
    """A failure that may pass by itself: of the network, or an answer of 408, 429 or 5xx."""

    is_of_answer = True
    """Whether it may be the fault of what was asked for: where no connection can be made, no request is to blame."""

    def __init__(self, outcome: str, cause: str, retry_after: float | None = None) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.cause = cause
        self.retry_after = retry_after


class _UnreachableError(_TransientError):
    """No request was sent."""

    is_of_answer = False


class _RateLimitedError(_TransientError):
    """StackOne asks for patience. That is no sign of bad health, so the breaker does not count it."""


@dataclass(frozen=True)
class Call:
    """One call of StackOne's API."""

    operation: str
    """Its name in metrics and logs."""
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, int | str] | None = None
    priority: Priority = Priority.INTERACTIVE
    owner_id: str | None = None
    """For whom somebody waits: an owner may use a share of the interactive budget only."""
    subject: str | None = None
    """What the call is about, so that one thing that always fails does not count as StackOne's failure for all."""
    once: bool = False
    """Made at most once, in a place that `reserve` has taken: for what is decided by a read right before it."""


# Their 404 can mean that there is no such account.
_ABOUT_ONE_ACCOUNT = frozenset({"get_account", "delete_account"})


class Calls:
    """Makes calls with the API key, one after another or at once; all share the budget, the breaker and the pool."""

    def __init__(
        self,
        settings: StackOneSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        budget: Budget | None = None,
        transport: Transport,
        jitter: random.Random | None = None,
    ) -> None:
        """Open nothing yet, and own `transport` from now on; without a `budget` it has one of its own."""
        self._jitter = jitter or random.Random()  # noqa: S311  spreads retries, and is no secret
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self.clock_skew: timedelta | None = None
        """How far StackOne's clock was ahead of ours at its last answer."""
        self._date: str | None = None
        self._budget = budget or Budget(settings.requests_per_minute, clock=clock, metrics=metrics)
        # Basic auth with an empty password: the colon is part of it, and leaving it out is a common 401.
        credential = base64.b64encode(f"{settings.api_key.get_secret_value()}:".encode()).decode()
        # The transport itself, without a client around it, whose cookies, redirects and hooks nobody wants.
        self._transport = transport
        self._base_url = settings.base_url.rstrip("/")
        self._headers = [
            (b"host", httpx2.URL(self._base_url).netloc),
            (b"authorization", f"Basic {credential}".encode()),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"gzip"),
            (b"user-agent", _USER_AGENT),
        ]
        self._extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), settings.timeout_seconds)}
        # Parsing an address costs as much as half of what carries it there.
        self._address = lru_cache(maxsize=_MOST_ADDRESSES)(self._parsed)
        self._turns = Turns(settings.max_connections)
        self._breaker = Breaker(
            settings.breaker_failures, settings.breaker_seconds, clock=clock, on_change=self._note_breaker
        )
        for state in BreakerState:
            metrics.breaker_state.labels(state.name.lower()).set_function(partial(self._is_in, state))

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    @property
    def waits_for_budget(self) -> float:
        """For how many seconds a call of a job has still to wait for room in the budget; 0 where none does."""
        return self._budget.waits

    async def make(self, call: Call) -> Any:
        """Make one call and return its JSON, once the budget has room: who waits for it is told at once if it has not.

        Raises Unavailable when StackOne is away, UpstreamRejected when it refuses what we sent, and AccountGone where
        it says that it has no such account.
        """
        return await self._once_there_is_room(call.priority, lambda: self._make_with_retries(call))

    async def reserve(self, priority: Priority, owner_id: str | None = None) -> None:
        """Take a place in the budget for a call that is to be made once. Raises Unavailable if there is no room."""
        await self._once_there_is_room(priority, lambda: self._budget.take(priority, owner_id))

    async def _once_there_is_room(self, priority: Priority, work: Callable[[], Awaitable[Any]]) -> Any:
        waited = 0.0
        while True:
            try:
                return await work()
            except BudgetSpent as spent:
                if waited + spent.retry_after > priority.patience_seconds:
                    raise self._unavailable("budget_spent", _BUDGET_SPENT, spent.retry_after) from spent
                waited = await self._budget.wait(spent, waited)

    async def _make_with_retries(self, call: Call) -> Any:
        """Make one call with its retries, all within the total deadline."""
        deadline = self._clock.monotonic() + self._settings.total_timeout_seconds
        attempts = 1 if call.once else self._settings.max_attempts
        try:
            async with asyncio.timeout(self._settings.total_timeout_seconds):
                for attempt in range(attempts):
                    try:
                        return await self._try(call)
                    except _TransientError as error:
                        wait = self._wait_before_retry(attempt, error)
                        # A hint that does not fit the time left would only be slept through: it is passed on instead.
                        if attempt == attempts - 1 or self._clock.monotonic() + wait >= deadline:
                            raise
                        await asyncio.sleep(wait)
        except _TransientError as error:
            raise self._unavailable(error.outcome, error.cause, error.retry_after) from error
        except BreakerOpen as error:
            raise self._unavailable("breaker_open", _BREAKER_OPEN, error.retry_after) from error
        except TimeoutError as error:
            raise self._unavailable("timeout", _TIMED_OUT, None) from error
        raise self._unavailable("timeout", _TIMED_OUT, None)

    def _wait_before_retry(self, attempt: int, error: _TransientError) -> float:
        wait: float = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) * self._jitter.uniform(0.5, 1.0)
        # "At once" comes from gateways that do not know.
        return max(wait, error.retry_after or 0.0)

    async def _try(self, call: Call) -> Any:
        """Make one attempt, if the breaker and the budget let it through."""
        self._breaker.admit()
        try:
            if not call.once:
                # Behind the breaker: while that is open no call leaves, so none is counted.
                await self._budget.take(call.priority, call.owner_id)
            answer = await self._attempt(call)
        except _RateLimitedError:
            self._breaker.succeeded()
            raise
        except _TransientError as error:
            # What somebody waits for counts once for all that its owner asks for, made-up ids included.
            subject = call.owner_id or call.subject or ""
            self._breaker.failed(call.operation, subject if error.is_of_answer else None)
            raise
        except (AccountGone, UpstreamRejected):
            self._breaker.succeeded()
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return answer

    def _is_in(self, state: BreakerState) -> float:
        return float(self._breaker.state is state)

    def _note_breaker(self, state: BreakerState) -> None:
        """Say when the breaker opens and closes: while it is open, nobody's call leaves."""
        name = state.name.lower()
        self._metrics.breaker_changes.labels(name).inc()
        log = logger.warning if state is BreakerState.OPEN else logger.info
        log("stackone_breaker_changed", state=name)

    def _unavailable(self, cause: str, message: str, retry_after: float | None) -> Unavailable:
        self._metrics.upstream_unavailable.labels(cause).inc()
        logger.warning("stackone_unavailable", cause=cause, reason=message)
        wait = min(retry_after or _DEFAULT_RETRY_AFTER, answers.LONGEST_RETRY_AFTER)
        return Unavailable(message, retry_after=wait, remedy=_REMEDIES.get(cause, _ITS_FAULT))

    async def _attempt(self, call: Call) -> Any:
        started = self._clock.monotonic()
        outcome = "cancelled"
        try:
            answer, outcome = await self._exchange(call)
        except _TransientError as error:
            outcome = error.outcome
            if isinstance(error, _RateLimitedError):
                # "At once" comes from gateways that do not know: a second is the least.
                hold = _DEFAULT_RETRY_AFTER if error.retry_after is None else max(error.retry_after, 1.0)
                self._budget.hold_background(hold)
            raise
        except (AccountGone, UpstreamRejected) as error:
            outcome = "gone" if isinstance(error, AccountGone) else "rejected"
            raise
        finally:
            duration = self._clock.monotonic() - started
            self._metrics.upstream.labels(call.operation, outcome).observe(duration)
            logger.debug("stackone_call", operation=call.operation, outcome=outcome, seconds=round(duration, 3))
        return answer

    async def _exchange(self, call: Call) -> tuple[Any, str]:
        response, content = await self._send(call)
        self._note_date(response.headers.get("date"))
        if answers.may_pass(response.status_code):
            limited = response.status_code == answers.TOO_MANY
            kind = _RateLimitedError if limited else _TransientError
            cause = _RATE_LIMITED if limited else f"StackOne answered {response.status_code}"
            their_now = self._clock.now() + (self.clock_skew or timedelta(0))
            wait = answers.retry_after(response.headers.get("retry-after"), their_now)
            raise kind(f"status_{response.status_code}", cause, wait)
        if response.status_code == answers.NOT_FOUND and call.operation in _ABOUT_ONE_ACCOUNT:
            if answers.says_not_found(content):
                raise AccountGone
            raise _TransientError("foreign_404", _FOREIGN_404)
        if not response.is_success:
            refusal = read_refusal(response.status_code, content, sent=(call.body, call.query, call.path))
            # A key that is refused stops everything: the operator has to act.
            log = logger.error if refusal.is_operators else logger.warning
            log(
                "stackone_refused",
                operation=call.operation,
                status=refusal.upstream_status,
                error_code=refusal.error_code,
                message=refusal.message,
            )
            raise refusal
        try:
            # An empty body is an answer to a delete, and nowhere else: readers of it fail on None.
            answer = json.loads(content) if content else None
        except (ValueError, RecursionError) as error:
            raise _TransientError("unreadable", _UNREADABLE) from error
        if answers.is_error(answer):
            raise _TransientError("disguised_error", _DISGUISED)
        return answer, "ok"

    def _note_date(self, header: str | None) -> None:
        """Compare the clocks, once for all answers of one second."""
        if header != self._date or header is None:
            self._date = header
            self.clock_skew = answers.clock_skew(header, self._clock.now())

    async def _send(self, call: Call) -> tuple[httpx2.Response, bytes]:
        """Send one request and read the whole answer; every failure of the network is a _TransientError."""
        request = self._request(call)
        try:
            # The timeouts of the transport's phases do not bound a trickling answer; this does.
            async with asyncio.timeout(self._settings.timeout_seconds):
                # Those for whom nobody waits have one turn among the owners.
                await self._turns.take(call.owner_id or call.priority.label)
                try:
                    response = await self._transport.handle_async_request(request)
                    try:
                        return response, await self._read(response)
                    finally:
                        await response.aclose()
                finally:
                    self._turns.give_back()
        except _NEVER_SENT as error:
            tls = tls_failure(error)
            if tls is not None:
                raise _UnreachableError("tls", f"no connection to StackOne can be made: {tls}") from error
            raise _UnreachableError("unreachable", _UNREACHABLE) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _TransientError("timeout", _TIMED_OUT) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise _TransientError("broken", _CUT) from error

    def _request(self, call: Call) -> httpx2.Request:
        """Put a request together with all of its headers: left to httpx2, that costs more than sending it."""
        headers = self._headers
        content = b""
        if call.body is not None:
            content = json.dumps(call.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            length = b"%d" % len(content)
            headers = [*headers, (b"content-type", b"application/json"), (b"content-length", length)]
        query = tuple(call.query.items()) if call.query else None
        request = httpx2.Request(
            call.method,
            self._address(call.path, query),
            headers=headers,
            stream=httpx2.ByteStream(content),
            extensions=self._extensions,
        )
        request.read()
        return request

    def _parsed(self, path: str, query: tuple[tuple[str, int | str], ...] | None) -> httpx2.URL:
        return httpx2.URL(self._base_url + path, params=query) if query else httpx2.URL(self._base_url + path)

    async def _read(self, response: httpx2.Response) -> bytes:
        """Read an answer up to the size that is allowed, as it comes and again when it is unpacked."""
        most = self._settings.max_answer_bytes
        chunks: list[bytes] = []
        size = 0
        if response.is_stream_consumed:
            # Its content is there already, as transports without a network have it.
            if len(response.content) > most:
                raise UpstreamRejected(_TOO_LARGE)
            return response.content
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101  what an asynchronous transport returns
        async for chunk in stream:
            size += len(chunk)
            if size > most:
                raise UpstreamRejected(_TOO_LARGE)
            chunks.append(chunk)
        content = b"".join(chunks)
        encoding = response.headers.get("content-encoding", "").strip().lower()
        return content if encoding in {"", "identity"} else _unpacked(content, encoding, most)


def operation_of(method: str, path: str) -> str:
    """Name a call by what is the same in all calls of its kind: ids, and whatever else is in its path, are left out."""
    return f"StackOne {method} {'/'.join(part if part in _PATH_WORDS else '*' for part in path.split('/'))}"


def _unpacked(content: bytes, encoding: str, most: int) -> bytes:
    """Unpack gzip or deflate, of which a few bytes may stand for gigabytes: never more than `most` are made."""
    if encoding not in _PACKED:
        raise _TransientError("unreadable", _UNREADABLE)
    unpacked, members = b"", 0
    try:
        # gzip may come in several members.
        while content:
            members += 1
            if members > _MOST_MEMBERS:
                raise _TransientError("unreadable", _UNREADABLE)
            unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
            unpacked += unpacking.decompress(content, most + 1 - len(unpacked))
            if len(unpacked) > most:
                raise UpstreamRejected(_TOO_LARGE)
            if not unpacking.eof:
                raise _TransientError("broken", _CUT)
            content = unpacking.unused_data
    except zlib.error as error:
        raise _TransientError("broken", _CUT) from error
    return unpacked
