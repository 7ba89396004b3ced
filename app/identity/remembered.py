"""Credentials that were verified a moment ago, so that a page's next request does not verify the same token again.

Kept by hash, never the credential itself, and only for as long as verifying it again would say the same: until it
expires, the keys that it was verified with are no longer the issuer's, or it is revoked (`forget`). A refusal is never
remembered. What is remembered is bounded by number and by size, and the oldest goes first.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from app.identity.caller import EndUser, Service

AnyCaller = TypeVar("AnyCaller", EndUser, Service)

_MOST: Final = 10_000
# Claims take up a few times as much memory as the token that carries them.
_MOST_CHARACTERS: Final = 4_000_000


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Verified(Generic[AnyCaller]):
    """Whom a credential stands for, and for how long that need not be asked again."""

    caller: AnyCaller
    until: float
    """Unix time from which on it has to be verified again."""
    still_holds: Callable[[], bool] = field(default=_always, repr=False)
    """Whether what it was verified with is still trusted; asked each time."""


@dataclass(frozen=True)
class _Entry:
    verified: Verified[EndUser] | Verified[Service]
    size: int
    name: str | None


class Remembered:
    """Verified credentials of one process."""

    def __init__(self, *, most: int = _MOST, most_characters: int = _MOST_CHARACTERS) -> None:
        """Remember at most so many, with so many characters of credentials in all."""
        self._most = most
        self._most_characters = most_characters
        self._entries: OrderedDict[tuple[type, bytes], _Entry] = OrderedDict()
        self._by_name: dict[str, set[tuple[type, bytes]]] = {}
        self._characters = 0

    def recall(self, kind: type[AnyCaller], credential: str, now: float) -> AnyCaller | None:
        """Return whom a credential stands for on routes of this kind of caller, if that is remembered."""
        key = _key(kind, credential)
        entry = self._entries.get(key)
        if entry is None:
            return None
        verified = entry.verified
        if now >= verified.until or not verified.still_holds():
            self._drop(key)
            return None
        assert isinstance(verified.caller, kind)  # noqa: S101  the kind is part of the key
        return verified.caller

    def remember(self, credential: str, verified: Verified[AnyCaller], *, name: str | None = None) -> None:
        """Keep what was verified; `name` is what it can be forgotten by, such as the id of a token that we issued."""
        key = _key(type(verified.caller), credential)
        self._drop(key)
        self._entries[key] = _Entry(verified, len(credential), name)
        self._characters += len(credential)
        if name is not None:
            self._by_name.setdefault(name, set()).add(key)
        while len(self._entries) > self._most or self._characters > self._most_characters:
            self._drop(next(iter(self._entries)))

    def forget(self, name: str) -> None:
        """Verify what was remembered under this name anew: it may have been revoked."""
        for key in tuple(self._by_name.get(name, ())):
            self._drop(key)

    def _drop(self, key: tuple[type, bytes]) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._characters -= entry.size
        if entry.name is not None:
            keys = self._by_name[entry.name]
            keys.discard(key)
            if not keys:
                del self._by_name[entry.name]


def _key(kind: type, credential: str) -> tuple[type, bytes]:
    return kind, hashlib.sha256(credential.encode(errors="surrogatepass")).digest()
