"""Text that requests may contain: what both databases can store, and what cannot mislead a person who reads it later.

NUL and lone surrogates pass JSON and pydantic; SQLite stores a NUL, PostgreSQL fails on it. Refusing them at the edge
keeps such input a 422 on both. Characters that turn the direction of what follows them (bidirectional overrides,
embeddings and isolates) make text look different from what it is; the marks that Hebrew and Arabic need are allowed.
"""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

_SURROGATES = range(0xD800, 0xE000)
_CONTROLS = frozenset(map(chr, [*range(0x20), 0x7F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


def storable(value: str) -> str:
    """Return the text. Raises ValueError for controls (NUL is one), lone surrogates and overrides."""
    if any(character in _CONTROLS or ord(character) in _SURROGATES for character in value):
        message = "must not contain control characters, lone surrogates or bidirectional overrides"
        raise ValueError(message)
    return value


ShortText = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(storable)]
OwnerId = ShortText
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
    """The query of a list: a name that is not a filter is refused, so that a typo does not answer with everything."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
