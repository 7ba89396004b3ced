"""The Python client without asyncio, written from the one with it."""

import re
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "clients/python/src/connect_broker_client"

_CHANGES = (
    (r"^\"\"\"(.*?) `make docs` writes \w+\.py from it.*?\"\"\"$", r'"""\1 Written from {source} by `make docs`."""'),
    (r"The client on asyncio\.", "The client."),
    (r"\basync (def|with|for) ", r"\1 "),
    (r"\bawait ", ""),
    (r"\bsqlalchemy\.ext\.asyncio\b", "sqlalchemy"),
    (r"^import asyncio\n", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\baio(?=[._ ])", "blocking"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\baclose\b", "close"),
    (r"connection\.run_sync\(self\._tables\.create\)", "self._tables.create(connection)"),
)


def blocking(name: str) -> str:
    """Return what the module of that name is without asyncio."""
    text = (CLIENT / name).read_text(encoding="utf-8")
    for pattern, new in _CHANGES:
        text = re.sub(pattern, new, text, flags=re.MULTILINE)
    return text.replace("{source}", name, 1)


def blocking_client() -> str:
    """Return blocking.py."""
    return blocking("aio.py")


def blocking_mirror() -> str:
    """Return blocking_mirror.py."""
    return blocking("aio_mirror.py")
