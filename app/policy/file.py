"""Reading a policy file (TOML): every mistake at once, each with its line and the name of its rule."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, ValidationError

from app.errors import SettingsError
from app.policy.rules import Channel, Policy, Rule
from app.stackone.models import Category

_LARGEST_FILE_BYTES = 1024 * 1024
_RULE_HEADER = re.compile(r"""\s*\[\[\s*["']?rule["']?\s*\]\]""")
_MATCHERS = ("owners", "groups", "claims", "channel")
_PERMISSIONS = (
    "providers",
    "categories",
    "connector_profiles",
    "multiple",
    "max_accounts_per_provider",
    "session_lifetime",
    "auth_links",
)

Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
ClaimValue = Text | StrictBool | StrictInt
ClaimValues = ClaimValue | Annotated[tuple[ClaimValue, ...], Field(min_length=1)]


class _WrittenRule(BaseModel):
    """A rule as it is written."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    name: Text
    owners: Texts | None = None
    groups: Texts | None = None
    claims: Annotated[dict[Text, ClaimValues], Field(min_length=1)] | None = None
    channel: Channel | Annotated[tuple[Channel, ...], Field(min_length=1)] | None = None
    deny: Literal[True] | None = None
    providers: Texts | None = None
    categories: Annotated[tuple[Category, ...], Field(min_length=1)] | None = None
    connector_profiles: Texts | None = None
    multiple: StrictBool | None = None
    max_accounts_per_provider: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None
    session_lifetime: Annotated[StrictInt, Field(ge=60, le=2_592_000)] | None = None
    auth_links: StrictBool | None = None


class _Lines:
    """Where things stand in the file; the TOML parser of the standard library does not say."""

    def __init__(self, text: str, rules: int) -> None:
        self._lines = text.split("\n")
        headers = [number for number, line in enumerate(self._lines) if _RULE_HEADER.match(line)]
        if len(headers) != rules:
            # Some of them stand inside a multi-line string: what comes before a real one is whole TOML by itself.
            headers = [number for number in headers if _is_whole(self._lines[:number])]
        self._headers = headers if len(headers) == rules else []

    def of_rule(self, index: int) -> int | None:
        """Return the line (from 1) on which a rule begins."""
        return self._headers[index] + 1 if index < len(self._headers) else None

    def of_key(self, index: int, key: str) -> int | None:
        """Return the line of a key of a rule, or of the rule if the key cannot be found."""
        if index >= len(self._headers):
            return None
        following = [*self._headers[index + 1 :], len(self._lines)][0]
        return self._find(key, self._headers[index] + 1, following, r"rule\s*\.\s*") or self.of_rule(index)

    def of_top_key(self, key: str) -> int | None:
        """Return the line of a key outside rules, be it a table, an entry of one, or a value."""
        return self._find(key, 0, len(self._lines), "")

    def _find(self, key: str, start: int, end: int, parent: str) -> int | None:
        quoted = rf"""["']?{re.escape(key)}["']?"""
        pattern = re.compile(rf"\s*(?:{quoted}\s*[=.]|\[{{1,2}}\s*{parent}{quoted}\s*[\].])")
        return next((number + 1 for number in range(start, end) if pattern.match(self._lines[number])), None)


def read_policy(path: Path | None) -> Policy:
    """Read the policy file; without one everything is allowed. Raises SettingsError with all mistakes."""
    if path is None:
        return Policy()
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError([f"policy file {path}: cannot be read ({type(error).__name__})"]) from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError([f"policy file {path}, line {line}: is not UTF-8"]) from error
    return parse_policy(text, f"policy file {path}")


def parse_policy(text: str, source: str = "policy") -> Policy:
    """Read the text of a policy file. Raises SettingsError with all mistakes."""
    if len(text) > _LARGEST_FILE_BYTES:
        raise SettingsError([f"{source}: is larger than a policy can sensibly be"])
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError([f"{source}: is not valid TOML: {error}"]) from error
    written = document.get("rule")
    is_list = isinstance(written, list) and all(isinstance(rule, dict) for rule in written)
    rules: list[dict[str, Any]] = written if isinstance(written, list) and is_list else []
    lines = _Lines(text, len(rules))
    mistakes = [*_document_mistakes(document, lines, has_rules=bool(rules))]
    groups = _groups(document)
    read: list[Rule] = []
    for index, raw in enumerate(rules):
        found, rule = _read_rule(raw, groups, read, index, lines)
        mistakes.extend(found)
        if rule is not None:
            read.append(rule)
    if mistakes:
        raise SettingsError([f"{source}{where}: {what}" for where, what in mistakes])
    return Policy(tuple(read))


Mistake = tuple[str, str]


def _at(line: int | None, rule: str = "") -> str:
    return (f", line {line}" if line else "") + rule


def _document_mistakes(document: Mapping[str, Any], lines: _Lines, *, has_rules: bool) -> Iterator[Mistake]:
    for key in document.keys() - {"rule", "groups"}:
        yield _at(lines.of_top_key(key)), f"unknown key {key!r}; there are [groups] and [[rule]]"
    if not has_rules:
        yield _at(lines.of_top_key("rule")), "has no [[rule]], so that nobody could open anything"
    groups = document.get("groups", {})
    if not isinstance(groups, dict):
        yield _at(lines.of_top_key("groups")), "[groups] is a table of lists of owner ids"
        return
    for name, members in groups.items():
        if not _is_group(members):
            yield _at(lines.of_top_key(name)), f"group {name!r} must be a list of one or more owner ids"


def _is_group(members: object) -> bool:
    return isinstance(members, list) and bool(members) and all(isinstance(m, str) and m for m in members)


def _groups(document: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    groups = document.get("groups")
    return {name: members for name, members in groups.items() if _is_group(members)} if isinstance(groups, dict) else {}


def _read_rule(
    raw: dict[str, Any], groups: Mapping[str, Sequence[str]], earlier: Sequence[Rule], index: int, lines: _Lines
) -> tuple[list[Mistake], Rule | None]:
    name = raw.get("name")
    label = f', rule "{name}"' if isinstance(name, str) and name else f", rule number {index + 1}"
    try:
        written = _WrittenRule.model_validate(raw)
    except ValidationError as error:
        by_key = {str(problem["loc"][0]): problem for problem in error.errors(include_input=False)}
        return [
            (_at(lines.of_key(index, key), label), f"{key}: {_complaint(problem)}") for key, problem in by_key.items()
        ], None
    mistakes = [
        (_at(lines.of_key(index, key) if key else lines.of_rule(index), label), what)
        for key, what in _rule_mistakes(written, raw, groups, earlier)
    ]
    return mistakes, _rule(written, groups, lines.of_rule(index))


def _complaint(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":
        return f"unknown key; a rule has name, {', '.join(_MATCHERS)}, deny, {', '.join(_PERMISSIONS)}"
    return str(problem["msg"])


def _rule_mistakes(
    rule: _WrittenRule, raw: Mapping[str, Any], groups: Mapping[str, Sequence[str]], earlier: Sequence[Rule]
) -> Iterator[tuple[str | None, str]]:
    """Yield (key, what is wrong) for what no type can say."""
    for other in earlier:
        if other.name == rule.name:
            yield "name", f"another rule has this name{_at(other.line)}"
    for group in rule.groups or ():
        if group not in groups:
            yield "groups", f"there is no group {group!r}"
    if not raw.keys() & set(_MATCHERS):
        yield None, 'says nobody; write owners = ["*"] for everybody'
    if rule.deny:
        for key in sorted(raw.keys() & set(_PERMISSIONS)):
            yield key, "a rule that denies allows nothing; leave this out"
    elif rule.providers is None and rule.categories is None:
        yield None, 'allows nothing; name providers (["*"] for all) or categories, or write deny = true'
    everybody = next((other for other in earlier if other.matches_everybody), None)
    if everybody is not None:
        yield None, f'is never reached: rule "{everybody.name}"{_at(everybody.line)} matches everybody'


def _rule(written: _WrittenRule, groups: Mapping[str, Sequence[str]], line: int | None) -> Rule:
    members = [owner for group in written.groups or () for owner in groups.get(group, ())]
    named = written.owners is not None or written.groups is not None
    channels = (written.channel,) if isinstance(written.channel, Channel) else written.channel
    return Rule(
        name=written.name,
        line=line,
        owners=(*(written.owners or ()), *members) if named else None,
        claims={path: _spelled(value) for path, value in (written.claims or {}).items()},
        channels=frozenset(channels) if channels is not None else None,
        deny=bool(written.deny),
        providers=written.providers or (),
        categories=written.categories or (),
        connector_profiles=written.connector_profiles or (),
        multiple=bool(written.multiple),
        max_accounts_per_provider=written.max_accounts_per_provider,
        session_lifetime=written.session_lifetime,
        auth_links=bool(written.auth_links),
    )


def _spelled(value: object) -> str | tuple[str, ...]:
    """Spell a claim's value as the verified claims are compared: true as "true", 7 as "7"."""
    if isinstance(value, tuple):
        return tuple(str(_spelled(member)) for member in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_whole(lines: Sequence[str]) -> bool:
    try:
        tomllib.loads("\n".join(lines))
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return True
