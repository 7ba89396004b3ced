"""A database's URL as hosts hand it out: every word is understood, or refused by its name. Pure; shows no value.

libpq's spelling is the standard (postgresql.org/docs/current/libpq-connect.html); drivers of other languages add words
of their own, which hosts copy into the URLs they show. What the broker's driver cannot do is refused with what to do
instead: a word that is passed over could be the one that asked for encryption.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from app.settings.section import is_loopback

DEFAULT_PORT: Final = 5432
_HIGHEST_PORT: Final = 65_535


class UrlMistake(ValueError):
    """The URL cannot be used. The text names words, never a value: a badly cut password could be in any of them."""


class SslMode(Enum):
    """What libpq's sslmode says of encryption, weakest first."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def encrypts(self) -> bool:
        """Whether nothing is ever sent in the clear."""
        return self in {SslMode.REQUIRE, SslMode.VERIFY_CA, SslMode.VERIFY_FULL}


class Pooler(Enum):
    """What stands between the broker and PostgreSQL, by how it hands out connections."""

    NONE = "none"
    SESSION = "session"
    TRANSACTION = "transaction"


@dataclass(frozen=True)
class SqliteUrl:
    """A file."""

    path: str


@dataclass(frozen=True)
class PostgresqlUrl:
    """A database on one server, or on the first of several that will do."""

    hosts: tuple[tuple[str, int], ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    sslmode: SslMode | None = None
    sslrootcert: Path | None = None
    sslcert: Path | None = None
    sslkey: Path | None = None
    sslpassword: str | None = field(default=None, repr=False)
    is_tls_direct: bool = False
    connect_timeout: float | None = None
    application_name: str | None = None
    options: str | None = None
    target_session_attrs: str = "any"
    pooler: Pooler | None = None

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can listen in."""
        return all(host.startswith("/") or is_loopback(host) for host, _ in self.hosts)


_HOST = r"(?:\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._%-]+)?\]|[A-Za-z0-9._~%-]*)(?::\d*)?"
# What may follow the user and the password: hosts, a name without reserved characters, words.
_AFTER_USER = re.compile(rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<database>[^/?#@]*))?(?:\?(?P<query>[^#]*))?")
_WORD = re.compile(r"[A-Za-z][A-Za-z_.]{1,39}")
_SCHEMES: Final = {"postgresql", "postgres", "postgresql+asyncpg"}
_SQLITE_SCHEMES: Final = {"sqlite", "sqlite+aiosqlite"}
_TARGETS: Final = {"any", "primary", "standby", "read-write", "read-only", "prefer-standby"}
# Switches of a server's command line, in which a space that is escaped ends nothing.
_NAMELESS: Final = re.compile(r"(?:^|(?<!\\)\s)(?:-c\s*+|--)(?![A-Za-z_][\w.-]*=)")
_READ_ONLY: Final = re.compile(r"transaction[_-]read[_-]only=(?!off|false|no|0)")
_SYSTEM: Final = "system"
_YES: Final = {"true", "1", "yes", "on"}
_NO: Final = {"false", "0", "no", "off"}

# Words that have one meaning which the driver fulfils anyway, and what to do about the others.
_ONLY: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "channel_binding": (
        frozenset({"disable", "prefer"}),
        "the driver has none; write channel_binding=prefer, and sslmode=verify-full to be sure of the server",
    ),
    "gssencmode": (frozenset({"disable", "prefer"}), "the driver encrypts with TLS only; use sslmode instead"),
    "client_encoding": (frozenset({"utf8", "utf-8", "auto"}), "the broker speaks UTF-8 only"),
    "load_balance_hosts": (frozenset({"disable"}), "hosts are tried in the order in which they are written"),
    "sslcompression": (frozenset(_NO), "TLS compression is unsafe and never used"),
    "sslsni": (frozenset(_YES), "the host's name is always sent"),
    "keepalives": (frozenset(_YES), "keepalives are never switched off"),
    "replication": (frozenset(_NO), "this is no replication client"),
    "uselibpqcompat": (frozenset(_YES), "sslmode means what it means to libpq; leave it out"),
    "ssl_min_protocol_version": (
        frozenset({"tlsv1", "tlsv1.1", "tlsv1.2"}),
        "TLSv1.2 is the least; set ssl_min_protocol_version on the server for more",
    ),
    "ssl_max_protocol_version": (frozenset({"tlsv1.3"}), "the newest that both know is spoken; leave it out"),
    "sslcertmode": (frozenset({"allow"}), "sslcert is sent if it is named and asked for; leave sslcertmode out"),
    "gssdelegation": (frozenset(_NO), "the driver is not used with Kerberos; use a password or sslcert"),
    "min_protocol_version": (frozenset({"3.0"}), "the driver speaks 3.0 only; leave it out"),
    "max_protocol_version": (frozenset({"3.0", "latest"}), "the driver speaks 3.0 only; leave it out"),
}
_REFUSED: Final[Mapping[str, str]] = {
    "connection_limit": "set BROKER_DATABASE__POOL_SIZE instead",
    "pool_timeout": "set BROKER_DATABASE__POOL_TIMEOUT_SECONDS instead",
    "pool_size": "set BROKER_DATABASE__POOL_SIZE instead",
    "max_overflow": "set BROKER_DATABASE__POOL_OVERFLOW instead",
    "statement_timeout": "set BROKER_DATABASE__STATEMENT_TIMEOUT_SECONDS instead",
    "command_timeout": "set BROKER_DATABASE__STATEMENT_TIMEOUT_SECONDS instead",
    "prepared_statements": "set BROKER_DATABASE__POOLER=transaction instead",
    "statement_cache_size": "set BROKER_DATABASE__POOLER=transaction instead",
    "prepared_statement_cache_size": "set BROKER_DATABASE__POOLER=transaction instead",
    "schema": "write options=-c%20search_path%3DNAME instead",
    "currentSchema": "write options=-c%20search_path%3DNAME instead",
    "search_path": "write options=-c%20search_path%3DNAME instead",
    "sslaccept": "write sslmode=verify-full (strict) or sslmode=require (accept_invalid_certs) instead",
    "sslidentity": "write sslcert= and sslkey= with files in PEM instead",
    "sslcrl": "revocation lists are not looked at",
    "sslcrldir": "revocation lists are not looked at",
    "requiressl": "write sslmode=require instead",
    "service": "write out what the service file says",
    "servicefile": "write out what the service file says",
    "passfile": "put the password into the URL, and the URL into a file of BROKER_SECRETS_DIR",
    "require_auth": "the driver cannot promise it; sslmode=verify-full makes sure of the server",
    "hostaddr": "write the address as the host",
    "ssl_mode": "write sslmode instead",
    "tls": "write sslmode=require instead",
    **dict.fromkeys(
        ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        "leave it out: a connection that was idle is asked before it is used, and no statement waits longer than"
        " BROKER_DATABASE__STATEMENT_TIMEOUT_SECONDS",
    ),
    **dict.fromkeys(("krbsrvname", "gsslib"), "the driver is not used with Kerberos; use a password or sslcert"),
    **dict.fromkeys(
        ("scram_client_key", "scram_server_key", "oauth_issuer", "oauth_client_id", "oauth_client_secret"),
        "put the password into the URL instead",
    ),
    "requirepeer": "leave it out, and let nobody else write into the socket's folder",
    "sslkeylogfile": "keys are never written down; leave it out",
}


def parse_database_url(text: str) -> SqliteUrl | PostgresqlUrl:
    """Understand a database's URL. Raises UrlMistake, which shows no part of it but names of words."""
    scheme, separator, rest = text.strip().partition("://")
    if separator and scheme in _SQLITE_SCHEMES:
        return _sqlite(rest)
    if scheme.startswith("jdbc:"):
        raise UrlMistake("leave jdbc: out; user and password may stay words, or stand before the host")
    if not separator or scheme not in _SCHEMES:
        raise UrlMistake("must begin with sqlite:/// or postgresql://; write host=... dbname=... as a URL")
    user_info, after = _cut(rest)
    found = _AFTER_USER.fullmatch(after)
    if found is None:
        raise UrlMistake(
            "cannot be understood after the scheme; write it as postgresql://USER:PASSWORD@HOST:PORT/NAME, reserved"
            " characters of the password as %40 (@), %2F (/), %3F (?), %23 (#)"
        )
    words = _words(found["query"] or "")
    user, colon, password = (user_info or "").partition(":")
    if not user_info:
        user = password = colon = ""
    # As in libpq a word wins: Prisma writes localhost before the slash, and the socket's folder as the word.
    named = unquote(words.pop("host", "")) or found["hosts"]
    hosts = _hosts(named) if named else ()
    ports = words.pop("port", "")
    hosts = _with_ports(hosts, ports) if ports else hosts
    return _apply(
        words,
        {
            "hosts": hosts or (("localhost", DEFAULT_PORT),),
            "user": _decoded(user) or None,
            "password": _decoded(password) if colon else None,
            "database": _decoded(found["database"] or "") or None,
        },
    )


def _sqlite(rest: str) -> SqliteUrl:
    path, question, words = rest.partition("?")
    if question and words:
        name = words.partition("=")[0]
        raise UrlMistake(
            f"{name if _WORD.fullmatch(name) else 'a word'}: SQLite's URL takes no words after a question mark"
        )
    if path and not path.startswith("/"):
        raise UrlMistake("must begin with sqlite:/// (three slashes, four for an absolute path)")
    return SqliteUrl(path[1:] or ":memory:")


def _cut(rest: str) -> tuple[str | None, str]:
    """Cut the user and the password off, at the first @ that leaves something which can follow them.

    A password may hold an unescaped @, / or ?, and a word may hold an @ (user=someone@example).
    """
    places = [place for place, character in enumerate(rest) if character == "@"]
    if not places:
        return None, rest
    for place in places:
        found = _AFTER_USER.fullmatch(rest, place + 1)
        if found is not None and (found["hosts"] or found["query"]) and _has_known_words_only(found["query"] or ""):
            return rest[:place], rest[place + 1 :]
    return rest[: places[-1]], rest[places[-1] + 1 :]


def _has_known_words_only(query: str) -> bool:
    known = {*_ONLY, *_REFUSED, *_SETTERS, "host", "port"}
    return all(
        name in known and equals for name, equals, _ in (pair.partition("=") for pair in query.split("&") if pair)
    )


def _words(query: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise UrlMistake("has something after the question mark that is no NAME=VALUE")
        if name in words:
            raise UrlMistake(f"{_shown(name, words)}: stands there twice; leave one of the two out")
        words[name] = value
    return words


def _shown(name: str, words: Mapping[str, str]) -> str:
    # What follows password= may be the rest of a password that holds an unescaped &.
    return name if _WORD.fullmatch(name) and "password" not in words else "a word after the question mark"


def _hosts(text: str) -> tuple[tuple[str, int], ...]:
    return tuple(_host(part) for part in text.split(","))


def _host(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.startswith("/"):
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    return unquote(host) or "localhost", _port(port) if port else DEFAULT_PORT


def _port(text: str) -> int:
    # Not int() alone: it takes spaces, underscores and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= _HIGHEST_PORT:
        raise UrlMistake("the port is no number from 1 to 65535")
    return int(text)


def _with_ports(hosts: tuple[tuple[str, int], ...], text: str) -> tuple[tuple[str, int], ...]:
    ports = [_port(port) for port in text.split(",")]
    hosts = hosts or (("localhost", DEFAULT_PORT),)
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise UrlMistake("port: must name one port, or one for each host")
    return tuple((host, port) for (host, _), port in zip(hosts, ports, strict=True))


def _decoded(text: str) -> str:
    """Undo %XX. What is no escape, such as a lone %, stays as it is."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def _apply(words: Mapping[str, str], found: dict[str, object]) -> PostgresqlUrl:
    for name, raw in words.items():
        value = _decoded(raw)
        if name in _REFUSED:
            raise UrlMistake(f"{name}: {_REFUSED[name]}")
        if name in _ONLY:
            accepted, otherwise = _ONLY[name]
            if value.lower() not in accepted:
                raise UrlMistake(f"{name}: {otherwise}")
            continue
        setter = _SETTERS.get(name)
        if setter is None:
            raise UrlMistake(f"{_shown(name, words)}: the broker does not know what it means; leave it out")
        try:
            # Empty is as good as absent, says libpq.
            found |= setter(value) if value else {}
        except ValueError as error:
            raise UrlMistake(f"{name}: {error}") from None
    if (
        words.get("sslrootcert") == _SYSTEM
        and found.setdefault("sslmode", SslMode.VERIFY_FULL) is not SslMode.VERIFY_FULL
    ):
        # So says libpq too: with an authority that signs for anybody, only the name makes sure of the server.
        raise UrlMistake(f"sslrootcert: {_SYSTEM} goes with sslmode=verify-full")
    if "sslcert" not in found and not found.keys().isdisjoint({"sslkey", "sslpassword"}):
        raise UrlMistake(
            "sslkey, sslpassword: are for a certificate that nothing names; add sslcert, or leave them out"
        )
    # Keyword arguments of one dataclass, each made by the setter of its type.
    return PostgresqlUrl(**found)  # type: ignore[arg-type]


def _sslmode(value: str) -> dict[str, object]:
    # ssl=true and ssl=false are how Node's and Java's drivers say it; asyncpg takes libpq's words there.
    lowered = value.lower()
    if lowered in _YES:
        return {"sslmode": SslMode.REQUIRE}
    if lowered in _NO:
        return {"sslmode": SslMode.DISABLE}
    try:
        return {"sslmode": SslMode(lowered)}
    except ValueError:
        raise ValueError(f"must be one of {', '.join(mode.value for mode in SslMode)}") from None


def _libpq_sslmode(value: str) -> dict[str, object]:
    if value == "no-verify":
        raise ValueError("write require instead, which encrypts and does not look at the certificate")
    if value not in {mode.value for mode in SslMode}:
        raise ValueError(f"must be one of {', '.join(mode.value for mode in SslMode)}")
    return _sslmode(value)


def _root_certificate(value: str) -> dict[str, object]:
    # libpq's word for the authorities that the system trusts.
    return {"sslrootcert": None if value == _SYSTEM else Path(value)}


def _seconds(value: str) -> dict[str, object]:
    if not re.fullmatch(r"[0-9]{1,4}", value):
        raise ValueError("must be a number of seconds")
    return {"connect_timeout": float(value) or None}


def _target(value: str) -> dict[str, object]:
    if value not in _TARGETS:
        raise ValueError(f"must be one of {', '.join(sorted(_TARGETS))}")
    if value in {"standby", "read-only", "prefer-standby"}:
        raise ValueError("the broker writes; use read-write or primary")
    return {"target_session_attrs": value}


def _pgbouncer(value: str) -> dict[str, object]:
    if value.lower() not in _YES | _NO:
        raise ValueError("must be true or false")
    return {"pooler": Pooler.TRANSACTION if value.lower() in _YES else Pooler.NONE}


def _options(value: str) -> dict[str, object]:
    # Forms write a space as +, which libpq would take for one.
    options = value.replace("+", " ")
    if _NAMELESS.search(options):
        raise ValueError("-c and -- must be followed by NAME=VALUE, or the server refuses every connection")
    if _READ_ONLY.search(options):
        raise ValueError("the broker writes; leave transaction_read_only out")
    return {"options": options}


def _negotiation(value: str) -> dict[str, object]:
    if value not in {"postgres", "direct"}:
        raise ValueError("must be postgres or direct")
    return {"is_tls_direct": value == "direct"}


_SETTERS: Final[Mapping[str, Callable[[str], dict[str, object]]]] = {
    "user": lambda value: {"user": value},
    "password": lambda value: {"password": value},
    "dbname": lambda value: {"database": value},
    "database": lambda value: {"database": value},
    "sslmode": _libpq_sslmode,
    "ssl": _sslmode,
    "sslrootcert": _root_certificate,
    "sslcert": lambda value: {"sslcert": Path(value)},
    "sslkey": lambda value: {"sslkey": Path(value)},
    "sslpassword": lambda value: {"sslpassword": value},
    "sslnegotiation": _negotiation,
    "connect_timeout": _seconds,
    "application_name": lambda value: {"application_name": value[:63]},
    "fallback_application_name": lambda _value: {},
    "options": _options,
    "target_session_attrs": _target,
    "pgbouncer": _pgbouncer,
}
