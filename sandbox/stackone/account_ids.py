"""Ids of linked accounts: StackOne has two kinds, and neither fits an integer column."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits + "_-"
_NANOID_LENGTH = 21
_TWENTY_DIGITS = 10**19


def nanoid() -> str:
    """Return a short random id of 21 url-safe characters."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_NANOID_LENGTH))


def twenty_digits() -> str:
    """Return a number of 20 digits, larger than any 64-bit integer holds signed."""
    return str(_TWENTY_DIGITS + secrets.randbelow(8 * _TWENTY_DIGITS))


class AccountIds:
    """Ids that alternate between the two kinds, so that no test meets one kind only."""

    def __init__(self) -> None:
        """Start with a nanoid."""
        self._made = 0

    def __call__(self) -> str:
        """Return the next id."""
        self._made += 1
        return nanoid() if self._made % 2 else twenty_digits()
