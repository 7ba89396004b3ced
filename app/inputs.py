"""Text that may come in: what both databases can store and what cannot confuse whoever reads it later.

NUL and lone surrogates pass JSON and pydantic; SQLite stores a NUL, PostgreSQL fails on it. Refusing them at the edge
keeps such input a 422 on both. Characters that turn the direction of what follows them (bidirectional overrides,
embeddings and isolates) make text read differently from what it is; the marks that Hebrew and Arabic need are no such.
"""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

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
