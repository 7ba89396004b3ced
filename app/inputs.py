"""Text that requests may contain: what both databases can store, and what cannot mislead a person who reads it later.

NUL and lone surrogates pass JSON and pydantic; SQLite stores a NUL, PostgreSQL fails on it. Refusing them at the edge
keeps such input a 422 on both. Characters that turn the direction of what follows them (bidirectional overrides,
embeddings and isolates) make text look different from what it is; the marks that Hebrew and Arabic need are allowed.
"""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, StringConstraints

_SURROGATES = range(0xD800, 0xE000)
# C0, DEL and C1 controls, line and paragraph separators, bidirectional overrides and isolates.
_CONTROLS = frozenset(map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]))
# What a path cannot carry: many servers and clients take them for separators, or resolve them away.
_NOT_IN_PATHS = frozenset("/\\")
_DOT_SEGMENTS = frozenset({".", ".."})


def storable(value: str) -> str:
    """Return the text. Raises ValueError for controls (NUL is one), lone surrogates and overrides."""
    if any(character in _CONTROLS or ord(character) in _SURROGATES for character in value):
        message = "must not contain control characters, lone surrogates or bidirectional overrides"
        raise ValueError(message)
    return value


def storable_secret(secret: SecretStr) -> SecretStr:
    """Do the same for a secret."""
    storable(secret.get_secret_value())
    return secret


ShortText = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(storable)]


def fits_any(patterns: Sequence[str], value: str) -> bool:
    """Say whether a value is one of the patterns, in which * stands for any text."""
    return any(
        value == pattern or ("*" in pattern and re.fullmatch(_expression(pattern), value, re.DOTALL) is not None)
        for pattern in patterns
    )


def _expression(pattern: str) -> str:
    return ".*".join(re.escape(part) for part in pattern.split("*"))


def addressable(owner_id: str) -> str:
    """Return an owner id that can stand in a path. Raises ValueError for one that could not be asked for or erased."""
    if owner_id in _DOT_SEGMENTS or not _NOT_IN_PATHS.isdisjoint(owner_id):
        message = "an owner id has no slash or backslash, and is not . or .."
        raise ValueError(message)
    return owner_id


OwnerId = Annotated[ShortText, AfterValidator(addressable)]
AccountIdText = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(storable)]
ProviderKey = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]

_LARGEST_METADATA_BYTES = 4096
SHORTEST_LIFE, LONGEST_LIFE = 60, 2_592_000


def _bounded_metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):
        message = "must be plain JSON"
        raise ValueError(message) from None
    # In this JSON control characters are escaped; everything else is unescaped.
    storable(text)
    if "\\u0000" in text or len(text.encode()) > _LARGEST_METADATA_BYTES:
        message = f"must be at most {_LARGEST_METADATA_BYTES} bytes of JSON without NUL"
        raise ValueError(message)
    return value


Metadata = Annotated[dict[str, Any], AfterValidator(_bounded_metadata)]


class Body(BaseModel):
    """The body of a request."""

    # Unknown fields are refused, not dropped: a client that sends origin_owner_id must learn that it has no effect.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Query(BaseModel):
    """The query of a list: a name that is not a filter is refused, so that a typo does not answer with everything.

    Frozen, because requests with the same text share one.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)
