"""Log lines, as JSON or for people, with secrets taken out as the very last step.

The redactor runs after everything else has been merged in (arguments, standard-library records, tracebacks), so that no
secret can get into a line after it. It finds secrets by the name of their field, by their shape (a JWT, a service key,
a bearer or basic credential), and by value where they come from the settings.

Our own lines are put together here and written at once; the standard library's records, of which there are few, go
through its handlers.
"""

import json
import logging
import logging.config
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog
from asgi_correlation_id import correlation_id

REDACTED = "[redacted]"

_SECRET_FIELDS = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "set-cookie", "x-stackone-signature", "x-hub-session-token",
        "token", "api_key", "secret", "password", "pepper", "auth_link_url", "key", "credentials", "setup_information",
    }
)  # fmt: skip
_SECRET_SHAPES = re.compile(
    r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){1,4}"  # a JWS or JWE
    r"|\bsk_[A-Za-z0-9]+_[A-Za-z0-9_-]{8,}"  # a service key
    r"|\b(?:Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|\bv\d+\.[a-z]{2}\d*\.[A-Za-z0-9_-]{8,}"  # a StackOne API key
    r"|[?&](?:token|state|code)=[^&\s\"']+"
    r"|\binv_[A-Za-z0-9_.-]{40,}"  # an invitation with its code
    r"|://[^/\s:@]+:[^/\s@]+@"  # a password in a URL
)
# Each of the shapes above contains one of these, however JSON spells what surrounds it.
_SIGNS_OF_SHAPES = re.compile(r"eyJ|sk_|inv_|Bearer|Basic|v\d+\.[a-z]{2}|[?&](?:token|state|code)=|://[^/]*@")
_MAXIMUM_DEPTH = 8
_PLAIN: Final = (str, int, float, type(None))


class Redactor:
    """A structlog processor that replaces secrets; the last one before rendering."""

    def __init__(self, known_secrets: Iterable[str] = ()) -> None:
        """`known_secrets` are the secrets of the settings."""
        longest_first = sorted({secret for secret in known_secrets if secret}, key=len, reverse=True)
        self._known = _any_of(longest_first)
        self._known_in_json = _any_of([*longest_first, *(json.dumps(secret)[1:-1] for secret in longest_first)])

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the event with every secret replaced."""
        return {name: self._field(name, value, 0) for name, value in event.items()}

    def _field(self, name: object, value: object, depth: int) -> object:
        if isinstance(name, str) and name.lower() in _SECRET_FIELDS and value is not None:
            return REDACTED
        return self._value(value, depth)

    def _value(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth > _MAXIMUM_DEPTH:
            return REDACTED
        if isinstance(value, Mapping):
            return {str(name): self._field(name, item, depth + 1) for name, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._value(item, depth + 1) for item in value]
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return _SECRET_SHAPES.sub(REDACTED, text)

    def rendered(self, event: MutableMapping[str, Any]) -> str:
        """Return the line of an event as JSON. Most have nothing in them that even looks like a secret."""
        if _SECRET_FIELDS.isdisjoint(map(str.lower, event)) and all(
            isinstance(value, _PLAIN) for value in event.values()
        ):
            line = json.dumps(event)
            if _SIGNS_OF_SHAPES.search(line) is None and (
                self._known_in_json is None or self._known_in_json.search(line) is None
            ):
                return line
        return json.dumps(self(None, "", event))


def _any_of(texts: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, texts))) if texts else None


def _for_people() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(),
        sort_keys=False,
        # The pretty one would print what variables hold, long after secrets were taken out.
        exception_formatter=structlog.dev.plain_traceback,
    )


def _add_request_id(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (request_id := correlation_id.get()) is not None:
        event.setdefault("request_id", request_id)
    return event


class _StandardStream:
    """Standard output or error as it is when a line is written: whoever redirects it later is followed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        """Write a text."""
        stream: TextIO = getattr(sys, self._name)
        return stream.write(text)

    def flush(self) -> None:
        """Hand over what was written."""
        getattr(sys, self._name).flush()


STANDARD_OUTPUT = _StandardStream("stdout")
STANDARD_ERROR = _StandardStream("stderr")
Stream = TextIO | _StandardStream


class _Output:
    """Where lines go, and from which level on. There is one, so that loggers that were made before keep to it."""

    stream: Stream = STANDARD_OUTPUT
    level: int = logging.INFO
    redactor = Redactor()
    console: structlog.dev.ConsoleRenderer | None = None
    """Writes lines for people, in place of JSON."""
    trace_id: Callable[[], str | None] | None = None
    """Says of which trace a line is part, where traces are on."""

    def render(self, log: "_Lines", method: str, event: MutableMapping[str, Any]) -> str:
        """Complete an event and return its line: all that structlog has to do, in one step."""
        if _LEVELS[method] < self.level:
            raise structlog.DropEvent
        event["level"] = method
        event["logger"] = log.name
        event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        _add_request_id(log, method, event)
        if self.trace_id is not None and (trace_id := self.trace_id()) is not None:
            event["trace_id"] = trace_id
        if "exc_info" in event:
            structlog.processors.format_exc_info(log, method, event)
        return self.redactor.rendered(event) if self.console is None else self.for_people(log, method, event)

    def for_people(self, _log: object, _method: str, event: MutableMapping[str, Any]) -> str:
        """Return a line for people, a traceback below it; without what a terminal would obey."""
        assert self.console is not None  # noqa: S101  who calls has looked
        shown = {name: _printable(name, value) for name, value in self.redactor(None, "", event).items()}
        return str(self.console(None, "", shown))


def _printable(name: str, value: object) -> object:
    if not isinstance(value, str) or value.isprintable():
        return value
    if name == "exception":
        return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in value)
    return json.dumps(value)


_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_output = _Output()
# One list for good: loggers keep it, and tests exchange what is in it.
_processors: list[structlog.typing.Processor] = [_output.render]


def tell_traces(trace_id: Callable[[], str | None] | None) -> None:
    """Have every line say of which trace it is part; None: no more."""
    _output.trace_id = trace_id


class _Lines:
    """What structlog hands finished lines to, for one module."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line."""
        _output.stream.write(line + "\n")
        _output.stream.flush()

    debug = info = warning = error = critical = msg


def configure_logs(
    level: str, known_secrets: Iterable[str] = (), *, stream: Stream = STANDARD_OUTPUT, console: bool = False
) -> None:
    """Send every log line of the process, ours and libraries', to a stream, redacted: as JSON, or for people."""
    _output.stream = stream
    _output.level = logging.getLevelNamesMapping()[level]
    _output.redactor = Redactor(known_secrets)
    _output.console = _for_people() if console else None
    structlog.configure(
        processors=_processors,
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=()),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_request_id,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *([_output.for_people] if console else [_output.redactor, structlog.processors.JSONRenderer()]),
        ],
    )
    handler = logging.StreamHandler(_output.stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At INFO the HTTP client logs whole URLs; at WARNING the correlation-id middleware logs what a client sent.
    for noisy in ("httpx2", "httpcore2", "uvicorn.access", "sqlalchemy.engine", "aiosqlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Whose collector is away learns it once for each batch, not once for each try.
    for repetitive in ("asgi_correlation_id", "opentelemetry"):
        logging.getLogger(repetitive).setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
