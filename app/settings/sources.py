"""Where settings are written: the environment, and below it the files of BROKER_SECRETS_DIR, as platforms deliver them.

One rule for both. What a platform puts around a value (white space, a trailing newline, quotes, a byte order mark) is
taken off; what cannot be told from a mistake is refused under the variable's name. No message shows a value.
"""

import codecs
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

PREFIX: Final = "BROKER_"
SECRETS_DIR: Final = "BROKER_SECRETS_DIR"
_WITHOUT_SECTION: Final = {"SECRETS_DIR", "ENVIRONMENT", "POLICY_FILE"}
NULL: Final = "null"

# Zero-width characters, which come along when a value is copied from a web page, and the byte order mark.
_INVISIBLE: Final = "\u200b\u200c\u200d\u2060\ufeff"
_QUOTES: Final = "\"'"
_TYPOGRAPHIC_QUOTES: Final = ("\u201c", "\u201d", "\u201e", "\u2018", "\u2019", "\u201a", "\u00ab", "\u00bb")
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class UnusableText(ValueError):
    """A text cannot be what somebody meant; the message says why and shows nothing of it."""


def read_variables(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return every BROKER_ variable, cleaned, and what is wrong with those that cannot be used: name -> reason."""
    mistakes: dict[str, str] = {}
    given = {name: environment[name] for name in _ours(environment, mistakes)}
    folder = given.pop(SECRETS_DIR, None)
    reads: dict[str, Callable[[], str]] = {}
    if folder is not None:
        reads = {path.name: partial(_text_of, path) for path in _files(folder, mistakes)}
    reads |= {name: partial(str, value) for name, value in given.items() if not _is_service_link(name, value)}
    variables: dict[str, str] = {}
    for name, read in reads.items():
        try:
            variables[name] = cleaned(read())
        except UnusableText as error:
            mistakes[name] = str(error)
    return variables, mistakes


def _ours(names: Iterable[str], mistakes: dict[str, str]) -> list[str]:
    """Return the names that begin with BROKER_.

    A setting that is not written in capitals is a mistake: passed over, a default would take its place. Other names may
    be somebody else's (Celery reads `broker_url`).
    """
    ours: list[str] = []
    for name in names:
        capitals = name.upper()
        is_setting = "__" in name or capitals.removeprefix(PREFIX) in _WITHOUT_SECTION
        if name != capitals and capitals.startswith(PREFIX) and is_setting:
            mistakes[capitals] = f"is spelled {name}; write it in capitals"
        elif name.startswith(PREFIX):
            ours.append(name)
    return ours


def _files(folder: str, mistakes: dict[str, str]) -> list[Path]:
    """List the files of a folder that are named like variables: Kubernetes adds links and folders that begin with .."""
    directory = Path(folder.strip().strip(_QUOTES))
    try:
        names = [path.name for path in directory.iterdir()]
        files = [directory / name for name in _ours(sorted(names), mistakes)]
    except OSError:
        files = []
    if not files:
        mistakes[SECRETS_DIR] = f"no folder with files named like {PREFIX}DATABASE__URL that the broker may read"
    return files


def _text_of(path: Path) -> str:
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise UnusableText(f"its file in {SECRETS_DIR} cannot be read ({type(error).__name__})") from None


def decoded(raw: bytes) -> str:
    """Decode a file: UTF-8, or UTF-16 that says so (PowerShell writes it). Raises UnusableText."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise UnusableText("is no UTF-8 text") from None


def cleaned(text: str) -> str:
    """Return a value without what platforms put around it. Raises UnusableText.

    Inside a JSON list or object each text is cleaned too.
    """
    value = _unquoted(_stripped(text))
    if value[:1] in {"[", "{"}:
        try:
            return json.dumps(_cleaned_members(json.loads(value)))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnusableText):
                raise UnusableText(f"an entry {error}") from None
    _refuse_unusable(value)
    if not value:
        raise UnusableText("is empty; leave it out, or write null")
    return value


def _stripped(text: str) -> str:
    return text.strip(_INVISIBLE + " \t\r\n\v\f\x85\xa0")


def _unquoted(value: str) -> str:
    """Take off one pair of quotes, which `docker --env-file` and files keep where a shell would not."""
    quote = value[:1]
    if not quote or quote not in _QUOTES:
        return value
    if len(value) == 1 or value[-1] != quote:
        raise UnusableText("begins with a quote and does not end with it")
    inside = value[1:-1]
    if quote == '"' and inside[:1] in {"[", "{"}:
        # JSON that was escaped to stand inside quotes: "[\"...\"]".
        inside = inside.replace('\\"', '"')
    return _stripped(inside)


def _cleaned_members(value: Any) -> Any:
    if isinstance(value, str):
        member = _stripped(value)
        _refuse_unusable(member)
        return member
    if isinstance(value, list):
        return [_cleaned_members(member) for member in value]
    if isinstance(value, dict):
        return {name: _cleaned_members(member) for name, member in value.items()}
    return value


# What a platform should have replaced by what it stands for, and what tools leave in the place of a secret.
_REFERENCE: Final = re.compile(
    r"""
    [\\$]?\$\{.*\} | \$\(.*\) | \$\$?[A-Z_][A-Z0-9_]* | `.*`  # shells, compose files, Kubernetes
    | %[A-Za-z_][A-Za-z0-9_]*% | %\(.*\)s?  # Windows, Python
    | \{\{.*\}\} | \[\[.*\]\] | <.*> | \#\{.*\}\#? | __[A-Z0-9_]+__ | \(\(.*\)\)  # charts, playbooks, pipelines
    | ![A-Z][A-Za-z]+[ ].*  # CloudFormation
    | @Microsoft\.[A-Za-z]+\(.*\) | secretref:.*  # Azure
    | arn:aws[a-z-]*:(?:secretsmanager|ssm):.* | (?:ssm|ssm-secure|secretsmanager):.*
    | (?://secretmanager\.googleapis\.com/)?projects/[^/]+/secrets/.*  # Google
    | (?:>>)?vault:.* | ref\+[a-z]+://.*  # Bank-Vaults, vals
    | (?:op|file|env|secrets?|[a-z+-]*(?:vault|sm|ssm|akv|bws?|ref)|berglas|doppler|infisical)://.*
    | ENC\[.*\] | \$ANSIBLE_VAULT;.*  # still encrypted, by sops or Ansible
    | \*{3,} | \[?REDACTED\]? | undefined | \(?sensitive(?:[ ]value)?\)?  # what is shown instead of a secret
    """,
    re.VERBOSE,
)
_ASSIGNMENT: Final = re.compile(r"export\s|(?:-e\s*)?BROKER_[A-Z0-9_]+\s*[=:]")


def _refuse_unusable(value: str) -> None:
    if _REFERENCE.fullmatch(value):
        raise UnusableText("is a reference that nothing has replaced by what it stands for")
    if _ASSIGNMENT.match(value):
        raise UnusableText("begins with its own name; leave NAME= out")
    if value.startswith(_TYPOGRAPHIC_QUOTES):
        raise UnusableText("begins with a typographic quote, as word processors make them")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # A variable whose bytes are no UTF-8 arrives as lone surrogates.
        raise UnusableText("is no UTF-8 text") from None
    # Text that was written as UTF-16 without a mark shows itself by its NULs.
    if any(not character.isprintable() and character != " " for character in value):
        raise UnusableText("holds a line break, or a character that cannot be seen; write it on one line, as UTF-8")


_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_LINK: Final = re.compile(r"(?:tcp|udp|sctp)://(?:\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z.-]+):[0-9]{1,5}")


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


# Kubernetes describes every Service of the namespace to every container, and one may be called `broker` or
# `broker-metrics`: BROKER_PORT=tcp://10.0.0.1:8000 and more. Told by the form of the name and of the value, so that
# BROKER_PORT=8000, a mistake for BROKER_HTTP__PORT, is still one.
_SERVICE_LINKS: Final[tuple[tuple[re.Pattern[str], Callable[[str], object]], ...]] = tuple(
    (re.compile(rf"BROKER(?:_[A-Z0-9]+)*{name}"), fits)
    for name, fits in (
        (r"_SERVICE_HOST", _is_address),
        (r"_SERVICE_PORT(?:_[A-Z0-9]+)*", _NUMBER.fullmatch),
        (r"_PORT(?:_[0-9]+_(?:TCP|UDP|SCTP))?", _LINK.fullmatch),
        (r"_PORT_[0-9]+_(?:TCP|UDP|SCTP)_PROTO", {"tcp", "udp", "sctp"}.__contains__),
        (r"_PORT_[0-9]+_(?:TCP|UDP|SCTP)_PORT", _NUMBER.fullmatch),
        (r"_PORT_[0-9]+_(?:TCP|UDP|SCTP)_ADDR", _is_address),
    )
)


def _is_service_link(name: str, value: str) -> bool:
    return any(pattern.fullmatch(name) and fits(value) for pattern, fits in _SERVICE_LINKS)


class _Variables(EnvSettingsSource):
    def __init__(self, settings: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.env_vars = parse_env_vars(variables, parse_none_str=NULL)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Leave text that is no JSON as it is: the field's own check then says so, with the variable's name."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def parsed(settings: type[BaseSettings], variables: Mapping[str, str]) -> dict[str, Any]:
    """Nest variables as settings are: BROKER_HTTP__PORT -> {"http": {"port": ...}}."""
    return _Variables(settings, variables)()
