"""The demo's secrets: made once for each state folder, readable by nobody else, useless outside the demo."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sandbox.launch.options import DemoError


@dataclass(frozen=True)
class DemoSecrets:
    """All of them begin with `demo-`, so that a broker in production mode refuses every one."""

    stackone_api_key: str
    webhook_secret: str
    pepper: str
    sandbox_key: str


def demo_secrets(directory: Path) -> DemoSecrets:
    """Return the folder's secrets, made now if it has none. Raises DemoError where they cannot be read."""
    path = directory / "secrets.json"
    if path.exists():
        return _read(path)
    fresh = DemoSecrets(*(f"demo-{secrets.token_urlsafe(24)}" for _ in fields(DemoSecrets)))
    # Created with its final mode: there is no moment in which others could read it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(fresh), file, indent=2)
    return fresh


def _read(path: Path) -> DemoSecrets:
    try:
        known = DemoSecrets(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DemoError(f"{path} cannot be read. Delete it, or choose another folder with --dir.") from error
    if not all(isinstance(value, str) and value.startswith("demo-") for value in asdict(known).values()):
        raise DemoError(f"{path} holds something else than demo secrets. Choose another folder with --dir.")
    return known
