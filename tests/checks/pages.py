"""The files that say what the code says: written by `make docs`, compared by `make check`. No Node is needed."""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined, to_jsonable_python

from app.main import create_app
from app.settings import PREFIX, Section, Settings
from tests.checks.browser_api import browser_document
from tests.support.world import settings_for

ROOT = Path(__file__).resolve().parents[2]

_CONFIGURATION_HEAD = """\
# Configuration

Every setting is an environment variable. Lists and objects are JSON. `broker check-config` reads them all, lists every
mistake at once, and starts nothing; `broker serve` refuses to start in the same way. A setting can also come from a
file: point `BROKER_SECRETS_DIR` at a folder whose files are named like the variables, and what the environment does
not say is read from there.

White space, a trailing newline, one pair of quotes and a byte order mark around a value are taken off, in variables and
in files alike; files may be UTF-16 with a mark. A value that is empty, holds a line break (outside JSON) or characters
that cannot be seen is refused by name. `null` switches off what may be absent. What Kubernetes says of Services called
`broker` or `broker-metrics` (`BROKER_PORT=tcp://...`, `BROKER_SERVICE_HOST` and the like) is ignored.

In production (the default) only https is spoken to StackOne and identity providers, secrets have at least 16
characters, and nothing that `broker-demo` made is accepted. `BROKER_ENVIRONMENT=development` accepts plain http on
loopback, listens on loopback only, and refuses keys that look like real StackOne keys.

This page is written from the code by `make docs`.

"""

_ENDPOINTS_HEAD = """\
# Endpoints

Three channels with three credentials; no route accepts two. What a route takes and answers in detail is in the OpenAPI
document (`/openapi.json`, `/docs`; on in development, and with `BROKER_HTTP__DOCS=true`).

| channel | credential |
|---|---|
| browser | `Authorization: Bearer` with a JWT of your identity provider, or that JWT in a cookie if cookies are on |
| service | `Authorization: Bearer sk_...` (a service key), or a machine's JWT with scopes |
| webhook | StackOne's signature over the raw body, in `x-stackone-signature` |
| health | none |

`GET /metrics` is served on its own listener (`BROKER_METRICS__PORT`), without a credential.

This page is written from the code by `make docs`.

"""


def configuration_page() -> str:
    """Write docs/configuration.md."""
    parts = [_CONFIGURATION_HEAD]
    plain = {n: f for n, f in Settings.model_fields.items() if _section_of(f.annotation) is None}
    parts.append("## General\n\n" + _table(plain, PREFIX))
    for name, field in Settings.model_fields.items():
        section = _section_of(field.annotation)
        if section is not None:
            parts.append(
                f"## `{PREFIX}{name.upper()}__*`\n\n{_text(section)}\n\n"
                + _table(section.model_fields, f"{PREFIX}{name.upper()}__")
            )
            parts.extend(_nested(section))
    return "\n".join(parts)


def _nested(section: type[BaseModel]) -> Iterator[str]:
    """Describe the objects that stand inside a section's lists."""
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        if inner is not None:
            yield f"### Members of `{name}`\n\n{_text(inner)}\n\n" + _table(inner.model_fields, "")
            yield from _nested(inner)


def _table(fields: Any, prefix: str) -> str:
    lines = ["| name | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        shown = f"{prefix}{name.upper()}" if prefix else name
        lines.append(f"| `{shown}` | {_default(field)} | {(field.description or '').replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _default(field: Any) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{json.dumps(to_jsonable_python(value))}`"


def _text(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


def _section_of(annotation: Any) -> type[Section] | None:
    """Find the section inside an annotation such as `tuple[IssuerSettings, ...]` or `CookieSettings | None`."""
    if not typing.get_args(annotation):
        return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
    return next((found for part in typing.get_args(annotation) if (found := _section_of(part))), None)


def openapi_document() -> dict[str, Any]:
    """Return what the broker says of its API. Nothing is opened or called for it."""
    settings = settings_for(
        database_url="sqlite:///unused.db", stackone_url="http://127.0.0.1:1", issuer="http://127.0.0.1:2"
    )
    return create_app(settings).openapi()


def endpoints_page() -> str:
    """Write docs/endpoints.md."""
    lines = ["| channel | endpoint | what it does | answers |", "|---|---|---|---|"]
    order = ("browser", "service", "webhook", "health")
    found = [
        (order.index(operation["tags"][0]), path, method.upper(), operation)
        for path, item in openapi_document()["paths"].items()
        for method, operation in item.items()
    ]
    for channel, path, method, operation in sorted(found, key=lambda row: row[:3]):
        statuses = " ".join(operation["responses"])
        lines.append(f"| {order[channel]} | `{method} {path}` | {operation['summary']} | {statuses} |")
    return _ENDPOINTS_HEAD + "\n".join(lines) + "\n"


def browser_api() -> str:
    """Write demo/openapi.json."""
    return browser_document(openapi_document())


PAGES = {
    "docs/configuration.md": configuration_page,
    "docs/endpoints.md": endpoints_page,
    "demo/openapi.json": browser_api,
}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (ROOT / name).write_text(write(), encoding="utf-8")
