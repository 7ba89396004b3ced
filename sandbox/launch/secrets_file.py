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
    invitation_secret: str
    user_token_secret: str


def demo_secrets(directory: Path) -> DemoSecrets:
    """Return the folder's secrets, made now where it has none. Raises DemoError where they cannot be read."""
    path = directory / "secrets.json"
    known = _read(path) if path.exists() else {}
    fresh = {field.name: f"demo-{secrets.token_urlsafe(24)}" for field in fields(DemoSecrets)}
    whole = DemoSecrets(**{**fresh, **known})
    if asdict(whole) != known:
        # Created with its final mode: there is no moment in which others could read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(whole), file, indent=2)
    return whole


def _read(path: Path) -> dict[str, str]:
    names = {field.name for field in fields(DemoSecrets)}
    try:
        known = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        known = {}
    if not known:
        raise DemoError(f"{path} cannot be read. Delete it, or choose another folder with --dir.")
    if not known.keys() <= names or not all(
        isinstance(value, str) and value.startswith("demo-") for value in known.values()
    ):
        raise DemoError(f"{path} holds something else than demo secrets. Choose another folder with --dir.")
    return known
