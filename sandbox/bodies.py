"""Reading JSON bodies, and saying everything that is wrong with one at once."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn

from fastapi import Request

from sandbox.errors import ApiError

Kind = Literal["string", "number", "integer", "boolean", "object", "strings", "objects", "anything"]

_SPOKEN: dict[Kind, str] = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "a boolean",
    "object": "an object",
    "strings": "an array of strings",
    "objects": "an array of objects",
    "anything": "anything",
}


def _number(value: object) -> bool:
    # To Python, true is a number.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _array_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


_FITS: dict[Kind, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": _number,
    "integer": lambda value: _number(value) and isinstance(value, int),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "strings": _array_of(str),
    "objects": _array_of(dict),
    "anything": lambda _value: True,
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one property may hold."""

    kind: Kind = "string"
    required: bool = False
    nullable: bool = True
    one_of: frozenset[str] | None = None
    at_least: float | None = None
    not_empty: bool = False


def _refuse_constant(name: str) -> NoReturn:
    # NaN and Infinity are Python's own extension of JSON.
    raise ValueError(name)


async def read_object(request: Request) -> dict[str, object]:
    """Return the body as a JSON object. Raises ApiError 400 for anything else."""
    raw = await request.body()
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
        # A lone surrogate parses, and then cannot be written back as UTF-8.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "The body is not valid JSON") from error
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object")
    return value


def complaints(body: Mapping[str, object], rules: Mapping[str, Rule]) -> list[str]:
    """Return one sentence for each thing that is wrong with `body`."""
    found = [f"property {name} should not exist" for name in body if name not in rules]
    for name, rule in rules.items():
        if name in body:
            found.extend(_complain(name, body[name], rule))
        elif rule.required:
            found.append(f"{name} must be {_SPOKEN[rule.kind]}")
    return found


def checked(body: dict[str, object], rules: Mapping[str, Rule]) -> dict[str, object]:
    """Return `body` if it keeps the rules. Raises ApiError 400 with every complaint otherwise."""
    if found := complaints(body, rules):
        raise ApiError(400, "Bad Request", errors=found)
    return body


def _complain(name: str, value: object, rule: Rule) -> list[str]:
    if value is None:
        return [] if rule.nullable and not rule.required else [f"{name} must be {_SPOKEN[rule.kind]}"]
    if not _FITS[rule.kind](value):
        return [f"{name} must be {_SPOKEN[rule.kind]}"]
    if rule.not_empty and value == "":
        return [f"{name} should not be empty"]
    if rule.at_least is not None and isinstance(value, int | float) and value < rule.at_least:
        return [f"{name} must not be less than {rule.at_least:g}"]
    if rule.one_of is not None:
        given = value if isinstance(value, list) else [value]
        if not rule.one_of.issuperset(given):
            return [f"{name} must be one of: {', '.join(sorted(rule.one_of))}"]
    return []
