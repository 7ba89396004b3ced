"""What is known of StackOne, read from the tables beside this file, and compared with what came over the wire."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
FAMILIES = {"stackone_api": "The API", "hub_api": "The Hub's private API"}
_FORMATS = {
    "moment": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "url": r"https?://\S+",
    # The Hub puts the token into a URL as it stands.
    "url_safe": r"[A-Za-z0-9._~-]+",
    "data_url": r"data:\S+",
}
_REDACTED = re.compile(r"__secretvalue:\*\*redacted\*\*.{0,4}")


@dataclass(frozen=True)
class Fact:
    """One field of a shape."""

    shape: str
    name: str
    row: Mapping[str, Any]

    @property
    def types(self) -> list[str]:
        """Return the JSON types that the field may have, other shapes as `@name`."""
        given = self.row["type"]
        return given if isinstance(given, list) else [given]


@dataclass
class Facts:
    """The tables of one family, and which of their fields have been seen."""

    family: str
    shapes: Mapping[str, Any]
    requests: Mapping[str, Any]
    calls: Mapping[str, Mapping[str, Any]]
    rest: Mapping[str, Any]
    seen: set[tuple[str, str]] = field(default_factory=set)

    def fields(self, shape: str) -> dict[str, Fact]:
        """Return the fields of a shape, those of the shape that it is like included."""
        row = self.shapes[shape]
        inherited = self.fields(row["like"]) if "like" in row else {}
        return inherited | {name: Fact(shape, name, found) for name, found in row["fields"].items()}

    def every_field(self) -> Iterator[Fact]:
        """Go through the fields of all shapes, each once."""
        for shape, row in self.shapes.items():
            for name, found in row["fields"].items():
                yield Fact(shape, name, found)

    def complaints(self, value: object, shape: str, where: str = "") -> list[str]:
        """Return everything in which a value differs from a shape."""
        if not isinstance(value, dict):
            return [f"{where or shape}: not an object"]
        known = self.fields(shape)
        found = [f"{where}{name}: the facts know no such field" for name in value if name not in known]
        for name, fact in known.items():
            if name in value:
                found += self._of_field(value[name], fact, f"{where}{name}")
            elif not fact.row.get("absent"):
                found.append(f"{where}{name}: missing")
        return found

    def _of_field(self, value: object, fact: Fact, where: str) -> list[str]:
        self.seen.add((fact.shape, fact.name))
        named = [kind.removeprefix("@") for kind in fact.types if kind.startswith("@")]
        if named and isinstance(value, dict):
            return self.complaints(value, named[0], f"{where}.")
        if not any(_is_a(value, kind) for kind in fact.types if not kind.startswith("@")):
            return [f"{where}: {value!r} is not {' or '.join(fact.types)}"]
        if isinstance(value, list):
            return [
                wrong for number, item in enumerate(value) for wrong in self._of_item(item, fact, f"{where}.{number}")
            ]
        return _of_value(value, fact.row, where)

    def _of_item(self, item: object, fact: Fact, where: str) -> list[str]:
        kind = fact.row.get("of")
        if kind is None:
            return []
        if kind.startswith("@"):
            return self.complaints(item, kind.removeprefix("@"), f"{where}.")
        return _of_value(item, fact.row, where) if _is_a(item, kind) else [f"{where}: {item!r} is not {kind}"]


def read_facts(family: str) -> Facts:
    """Read one table."""
    table = tomllib.loads((_HERE / f"{family}.toml").read_text(encoding="utf-8"))
    rest = {name: table[name] for name in table if name not in {"shapes", "requests", "calls"}}
    return Facts(family, table["shapes"], table["requests"], table["calls"], rest)


def decisions() -> Mapping[str, str]:
    """Read what the sandbox decides by itself."""
    return tomllib.loads((_HERE / "decisions.toml").read_text(encoding="utf-8"))


def _is_a(value: object, kind: str) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "array": list, "object": dict}[kind])


def _of_value(value: object, row: Mapping[str, Any], where: str) -> list[str]:
    if value is None:
        return []
    if "one_of" in row and value not in row["one_of"]:
        return [f"{where}: {value!r} is none of {', '.join(row['one_of'])}"]
    return [] if _has_format(value, row.get("format")) else [f"{where}: {value!r} is no {row['format']}"]


def _has_format(value: object, form: str | None) -> bool:
    if form is None:
        return True
    if form == "redacted":
        return isinstance(value, dict) and all(_REDACTED.fullmatch(str(secret)) for secret in value.values())
    fits = re.fullmatch(_FORMATS[form], str(value)) is not None
    if form == "moment" and fits:
        datetime.fromisoformat(str(value))
    return fits
