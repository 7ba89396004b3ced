"""JSON log lines, with secrets taken out as the very last step.

The redactor runs after everything else has been merged in (arguments, standard-library records, tracebacks), so that no
secret can get into a line after it. It finds secrets by the name of their field, by their shape (a JWT, a service key,
a bearer or basic credential), and by value where they come from the settings.
"""

import logging
import logging.config
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, TextIO

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
    r"|://[^/\s:@]+:[^/\s@]+@"  # a password in a URL
)
_MAXIMUM_DEPTH = 8


class Redactor:
    """A structlog processor that replaces secrets; the last one before rendering."""

    def __init__(self, known_secrets: Iterable[str] = ()) -> None:
        """`known_secrets` are the secrets of the settings."""
        longest_first = sorted({secret for secret in known_secrets if secret}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

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


def _add_request_id(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (request_id := correlation_id.get()) is not None:
        event.setdefault("request_id", request_id)
    return event


def configure_logs(level: str, known_secrets: Iterable[str] = (), *, stream: TextIO | None = None) -> None:
    """Send every log line of the process, ours and libraries', to a stream (standard output) as redacted JSON."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=())],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            Redactor(known_secrets),
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At INFO the HTTP client logs whole URLs; at WARNING the correlation-id middleware logs what a client sent.
    for noisy in ("httpx2", "httpcore2", "uvicorn.access", "sqlalchemy.engine", "aiosqlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("asgi_correlation_id").setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
