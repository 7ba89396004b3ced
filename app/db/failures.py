"""Why the database did not do what it was asked: each cause with what callers may know, and what to do about it.

A database that is away, full, locked or unwilling is nobody's mistake in a request: it is a 503 that names its cause,
one line in the log, and the same sentence in /readyz, doctor and the commands. None of it holds a host, a name, a
password or SQL. What is no such failure (a statement that is wrong, a constraint that holds) stays an error of ours.
"""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import Unavailable


class Cause(Enum):
    """Why."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    NO_TLS = "no_tls"
    CREDENTIALS = "credentials"
    MISSING_DATABASE = "missing_database"
    POOLER = "pooler"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    POOL_EXHAUSTED = "pool_exhausted"
    STOPPING = "stopping"
    READ_ONLY = "read_only"
    PERMISSION = "permission"
    SCHEMA = "schema"
    DISK_FULL = "disk_full"
    OUT_OF_RESOURCES = "out_of_resources"
    LOCK_TIMEOUT = "lock_timeout"
    STATEMENT_TIMEOUT = "statement_timeout"
    CONFLICT = "conflict"
    CORRUPT = "corrupt"
    CANNOT_OPEN = "cannot_open"
    INPUT_OUTPUT = "input_output"
    INTERNAL = "internal"


@dataclass(frozen=True)
class _Said:
    detail: str
    remedy: str
    retry_after: float = 2.0


# What passes by itself is worth a quick return; what somebody has to repair is not.
_PATIENT = 15.0
_SAID: Final[Mapping[Cause, _Said]] = {
    Cause.UNREACHABLE: _Said(
        "the database cannot be reached", "check that it is up and that BROKER_DATABASE__URL names it"
    ),
    Cause.TLS: _Said(
        "the database's certificate is not accepted",
        "name its authority with sslrootcert in BROKER_DATABASE__URL or BROKER_DATABASE__CA_FILE, and connect by a name"
        " that stands in the certificate",
        _PATIENT,
    ),
    Cause.NO_TLS: _Said(
        "the database does not speak TLS",
        "switch it on at the server, or say sslmode=disable in BROKER_DATABASE__URL where nobody can listen",
        _PATIENT,
    ),
    Cause.CREDENTIALS: _Said(
        "the database refuses the broker's credentials",
        "check the user and password in BROKER_DATABASE__URL, that the role may log in, and the server's pg_hba.conf",
        _PATIENT,
    ),
    Cause.MISSING_DATABASE: _Said(
        "the database does not exist on its server",
        "create it, or correct the name at the end of BROKER_DATABASE__URL",
        _PATIENT,
    ),
    Cause.POOLER: _Said(
        "a connection pooler stands before the database, and was not said to",
        "set BROKER_DATABASE__POOLER=transaction (or session), or connect to PostgreSQL directly",
        _PATIENT,
    ),
    Cause.TOO_MANY_CONNECTIONS: _Said(
        "the database has no connections left",
        "raise max_connections, or lower BROKER_DATABASE__POOL_SIZE and POOL_OVERFLOW times the number of replicas",
    ),
    Cause.POOL_EXHAUSTED: _Said(
        "every connection of this process to the database is in use",
        "see whether the database is slow; else raise BROKER_DATABASE__POOL_SIZE",
    ),
    Cause.STOPPING: _Said("the database is starting or stopping", "wait until it is up"),
    Cause.READ_ONLY: _Said(
        "the database is read-only",
        "let BROKER_DATABASE__URL name the primary (several hosts with target_session_attrs=read-write follow it), and"
        " see that neither the role nor the file is read-only",
    ),
    Cause.PERMISSION: _Said(
        "the database denies the broker's role permission",
        "GRANT the role SELECT, INSERT, UPDATE and DELETE on every table; `broker migrate` also needs CREATE on the"
        " schema and must own the tables",
        _PATIENT,
    ),
    Cause.SCHEMA: _Said("the database's schema is not current", "run: broker migrate", _PATIENT),
    Cause.DISK_FULL: _Said("the database's disk is full", "make room on it", _PATIENT),
    Cause.OUT_OF_RESOURCES: _Said("the database is out of resources", "give its server more memory"),
    Cause.LOCK_TIMEOUT: _Said(
        "something else holds a lock in the database", "see who holds it (pg_locks; another process on an SQLite file)"
    ),
    Cause.STATEMENT_TIMEOUT: _Said(
        "the database is too slow", "see what keeps it busy; else raise BROKER_DATABASE__STATEMENT_TIMEOUT_SECONDS"
    ),
    Cause.CONFLICT: _Said("the database gave up one of two transactions that clashed", "try again", 1.0),
    Cause.CORRUPT: _Said(
        "the database file is damaged or no SQLite database",
        "restore it from a backup; keep the damaged file",
        _PATIENT,
    ),
    Cause.CANNOT_OPEN: _Said(
        "the database file cannot be opened",
        "create the folder that BROKER_DATABASE__URL names, and let the broker's user write to it",
        _PATIENT,
    ),
    Cause.INPUT_OUTPUT: _Said("the database cannot read or write its disk", "look into its server's log", _PATIENT),
    Cause.INTERNAL: _Said("the database failed inside", "look into its server's or its pooler's log", _PATIENT),
}

# SQLSTATE: the whole code first, then its class.
_BY_CODE: Final[Mapping[str, Cause]] = {
    "25006": Cause.READ_ONLY,
    "26000": Cause.POOLER,  # a prepared statement is gone: another server connection than the one it was prepared on
    "42P05": Cause.POOLER,  # it is there already: made by somebody else
    "42501": Cause.PERMISSION,
    "42P01": Cause.SCHEMA,
    "42703": Cause.SCHEMA,
    "42883": Cause.SCHEMA,  # no such function
    "3F000": Cause.SCHEMA,
    "53100": Cause.DISK_FULL,
    "53300": Cause.TOO_MANY_CONNECTIONS,
    "55P03": Cause.LOCK_TIMEOUT,
    "55000": Cause.STOPPING,  # it takes no connections now
    "57014": Cause.STATEMENT_TIMEOUT,
    "25P03": Cause.STATEMENT_TIMEOUT,
    "XX001": Cause.CORRUPT,
    "XX002": Cause.CORRUPT,
}
_BY_CLASS: Final[Mapping[str, Cause]] = {
    "08": Cause.UNREACHABLE,
    "28": Cause.CREDENTIALS,
    "3D": Cause.MISSING_DATABASE,
    "40": Cause.CONFLICT,
    "53": Cause.OUT_OF_RESOURCES,
    "55": Cause.LOCK_TIMEOUT,
    "57": Cause.STOPPING,
    "58": Cause.INPUT_OUTPUT,
    "XX": Cause.INTERNAL,
}
# PgBouncer 1.18 says all of these with 08P01.
_POOLER_SAID: Final = (
    ("unsupported startup parameter", Cause.POOLER),
    ("no such database", Cause.MISSING_DATABASE),
    ("no such user", Cause.CREDENTIALS),
    ("auth", Cause.CREDENTIALS),
    ("no more connections", Cause.TOO_MANY_CONNECTIONS),
)
# The driver's own error, without an SQLSTATE, where no host is what target_session_attrs asks for.
_NO_HOST_WRITES: Final = "TargetServerAttributeNotMatched"
# The driver's own error where a server ends a connection while it is being opened. SQLAlchemy's wrapper of all of the
# driver's own errors has the same name, so it decides only where nothing below it does.
_LOST_TRACK: Final = "InternalClientError"
# SQLite's names, by how they begin: extended codes follow after an underscore.
_BY_SQLITE_NAME: Final[Mapping[str, Cause]] = {
    "SQLITE_READONLY": Cause.READ_ONLY,
    "SQLITE_FULL": Cause.DISK_FULL,
    "SQLITE_BUSY": Cause.LOCK_TIMEOUT,
    "SQLITE_LOCKED": Cause.LOCK_TIMEOUT,
    "SQLITE_CORRUPT": Cause.CORRUPT,
    "SQLITE_NOTADB": Cause.CORRUPT,
    "SQLITE_CANTOPEN": Cause.CANNOT_OPEN,
    "SQLITE_PERM": Cause.CANNOT_OPEN,
    "SQLITE_AUTH": Cause.PERMISSION,
    "SQLITE_IOERR": Cause.INPUT_OUTPUT,
    "SQLITE_NOMEM": Cause.OUT_OF_RESOURCES,
    "SQLITE_INTERRUPT": Cause.STATEMENT_TIMEOUT,
    "SQLITE_SCHEMA": Cause.CONFLICT,
}


@dataclass(frozen=True)
class Failure:
    """One failure: its cause, and the database's own code for it (an SQLSTATE, or SQLite's name)."""

    cause: Cause
    code: str | None = None

    @property
    def detail(self) -> str:
        """What a caller may know, without a full stop."""
        return _SAID[self.cause].detail

    @property
    def remedy(self) -> str:
        """What the operator can do."""
        return _SAID[self.cause].remedy

    @property
    def retry_after(self) -> float:
        """When to come back, in seconds."""
        return _SAID[self.cause].retry_after


class DatabaseUnavailable(Unavailable):
    """The database did not do what it was asked; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        """Say it to callers."""
        super().__init__(failure.detail, retry_after=failure.retry_after, remedy=failure.remedy)
        self.failure = failure


def failure_of(error: BaseException, *, is_connected: bool = False) -> Failure | None:
    """Name the failure that an error of the database layer stands for; None for one that is a mistake of ours.

    `is_connected` tells a wait for an answer from one for a connection.
    """
    if isinstance(error, PoolTimeoutError):
        return Failure(Cause.POOL_EXHAUSTED)
    for link in _chain(error):
        if (named := _named(link, is_connected=is_connected)) is not None:
            return named.failure
    is_disconnect = isinstance(error, DBAPIError) and error.connection_invalidated
    # The driver's own words for a connection that ended under it carry no SQLSTATE.
    ended = isinstance(error, (DBAPIError, InvalidRequestError)) and "connection is closed" in str(error).lower()
    lost_track = any(type(link).__name__ == _LOST_TRACK for link in _chain(error))
    return Failure(Cause.UNREACHABLE) if is_disconnect or ended or lost_track else None


def code_of(error: BaseException) -> str | None:
    """Return the database's own code for an error: an SQLSTATE, or SQLite's name."""
    for link in _chain(error):
        for name in ("sqlstate", "sqlite_errorname"):
            if isinstance(code := getattr(link, name, None), str):
                return code
    return None


@dataclass(frozen=True)
class _Named:
    """What an error with a code, or of the network, means; `failure` is None for a mistake of ours."""

    failure: Failure | None


def _named(error: BaseException, *, is_connected: bool) -> _Named | None:
    code, name = getattr(error, "sqlstate", None), getattr(error, "sqlite_errorname", None)
    if type(error).__name__ == _NO_HOST_WRITES:
        return _Named(Failure(Cause.READ_ONLY))
    if isinstance(code, str):
        return _Named(_postgresql(code, error))
    if isinstance(name, str):
        return _Named(_sqlite(name, error))
    if isinstance(error, ssl.SSLError):
        return _Named(Failure(Cause.TLS))
    return _Named(_connection(error, is_connected=is_connected)) if isinstance(error, OSError) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Go from what SQLAlchemy raised down to what the driver or the network said."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        original = getattr(link, "orig", None)
        link = original if isinstance(original, BaseException) else link.__cause__


def _postgresql(code: str, error: BaseException) -> Failure | None:
    cause = _BY_CODE.get(code) or _BY_CLASS.get(code[:2])
    if code == "08P01":
        said = str(error).lower()
        cause = next((named for words, named in _POOLER_SAID if words in said), Cause.UNREACHABLE)
    return Failure(cause, code) if cause else None


def _sqlite(name: str, error: BaseException) -> Failure | None:
    if name == "SQLITE_ERROR":
        is_schema = str(error).startswith(("no such table", "no such column")) or "has no column" in str(error)
        return Failure(Cause.SCHEMA, name) if is_schema else None
    cause = next((cause for start, cause in _BY_SQLITE_NAME.items() if name.startswith(start)), None)
    return Failure(cause, name) if cause else None


def _connection(error: OSError, *, is_connected: bool) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure(Cause.STATEMENT_TIMEOUT if is_connected else Cause.UNREACHABLE)
    return Failure(Cause.NO_TLS if "rejected SSL upgrade" in str(error) else Cause.UNREACHABLE)
